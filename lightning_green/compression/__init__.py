"""Compression in pure PyTorch: masks and schedules, removal of channels, fake quantization, distillation, export."""

from lightning_green.compression.distillation.teacher_cache import TeacherCache
from lightning_green.compression.distillation.teachers import load_teacher
from lightning_green.compression.export import Exported, export, onnx_session, weight_bytes
from lightning_green.compression.profile import Profile, profile
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
from lightning_green.compression.pruning.sparse_kernels import SparseLayer, use_sparse_kernels
from lightning_green.compression.quantization.agreement import Agreement, agreement
from lightning_green.compression.quantization.quantized_network import QuantizedNetwork, quantize
from lightning_green.compression.schedules import Moment, Ramp, Span, sparsity_at

__all__ = [
    "Agreement",
    "ChannelPruner",
    "Exported",
    "Granularity",
    "MaskPruner",
    "MaskedParameters",
    "Moment",
    "Profile",
    "QuantizedNetwork",
    "Ramp",
    "Span",
    "SparseLayer",
    "TeacherCache",
    "agreement",
    "block_mask",
    "erdos_renyi_sparsities",
    "export",
    "global_masks",
    "load_pruned",
    "load_teacher",
    "masks_for",
    "measured_sparsity",
    "n_m_mask",
    "onnx_session",
    "profile",
    "prunable_parameters",
    "quantize",
    "removable_widths",
    "remove_channels",
    "resize_to",
    "rigl_mask",
    "slice_optimizer",
    "sparsity_at",
    "unstructured_mask",
    "use_sparse_kernels",
    "weight_bytes",
]
