"""Masks and removal of channels (pure torch)."""

from lightning_green.compression.pruning.channel_pruner import ChannelPruner
from lightning_green.compression.pruning.channels import removable_widths, remove_channels
from lightning_green.compression.pruning.granularity import Granularity, masks_for
from lightning_green.compression.pruning.mask_pruner import MaskPruner
from lightning_green.compression.pruning.masked_parameters import MaskedParameters
from lightning_green.compression.pruning.masks import block_mask, global_masks, n_m_mask, unstructured_mask
from lightning_green.compression.pruning.optimizer_states import slice_optimizer
from lightning_green.compression.pruning.parameters import measured_sparsity, prunable_parameters
from lightning_green.compression.pruning.resizing import load_pruned, resize_to
from lightning_green.compression.pruning.rigl import erdos_renyi_sparsities, rigl_mask

__all__ = [
    "ChannelPruner",
    "Granularity",
    "MaskPruner",
    "MaskedParameters",
    "block_mask",
    "erdos_renyi_sparsities",
    "global_masks",
    "load_pruned",
    "masks_for",
    "measured_sparsity",
    "n_m_mask",
    "prunable_parameters",
    "removable_widths",
    "remove_channels",
    "resize_to",
    "rigl_mask",
    "slice_optimizer",
    "unstructured_mask",
]
