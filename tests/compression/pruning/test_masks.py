import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_green.compression import (
    block_mask,
    global_masks,
    n_m_mask,
    unstructured_mask,
)


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 1), st.integers(0, 1000))
def test_masks_drop_an_exact_number_of_lowest_scores(sparsity, seed):
    scores = torch.randint(0, 5, (7, 9), generator=torch.Generator().manual_seed(seed)).float()  # many ties
    mask = unstructured_mask(scores, sparsity)
    assert int((~mask).sum()) == round(sparsity * 63)
    if mask.any() and (~mask).any():
        assert scores[mask].min() >= scores[~mask].max()


def test_global_masks_compare_scores_across_layers():
    masks = global_masks({"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([[3.0, 4.0]])}, 0.5)
    assert masks["a"].tolist() == [False, False]
    assert masks["b"].tolist() == [[True, True]]


@pytest.mark.parametrize("shape", [(6, 8), (5, 8, 3, 3)])
def test_n_m_mask_keeps_n_of_m_along_the_input_channels(shape):
    scores = torch.rand(shape)
    mask = n_m_mask(scores, 2, 4)
    groups = mask.movedim(1, -1).reshape(-1, 4)
    assert (groups.sum(1) == 2).all()
    kept, dropped = scores.movedim(1, -1).reshape(-1, 4), groups
    assert (kept.masked_fill(~dropped, 2).min(1).values >= kept.masked_fill(dropped, -1).max(1).values).all()
    with pytest.raises(ValueError, match="multiple of 4"):
        n_m_mask(torch.rand(4, 3, 3, 3), 2, 4)


def test_block_mask_drops_whole_blocks_including_the_edges():
    scores = torch.rand(7, 5)
    mask = block_mask(scores, 0.5, 4, 2)
    for rows in (slice(0, 4), slice(4, 7)):
        for columns in (slice(0, 2), slice(2, 4), slice(4, 5)):
            block = mask[rows, columns]
            assert block.all() or not block.any()
    assert mask.reshape(-1).float().mean() < 1
