"""Gradients in 16 bits, with one rank."""

import pytest
import torch
import torch.distributed as dist

from lightning_green.strategies.gradient_formats import begin_mean
from lightning_green.strategies.traffic import GLOO_HEADERS, Traffic


@pytest.fixture(autouse=True)
def group(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def mean(gradients, dtype=None, traffic=None):
    return begin_mean(gradients.clone(), traffic or Traffic(1), dtype).wait()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradients_are_rounded_to_the_format(dtype):
    gradients = torch.randn(100)
    result = mean(gradients, dtype)
    assert result.dtype == torch.float32
    assert torch.equal(result, gradients.to(dtype).float())
    assert not torch.equal(result, gradients)
    assert torch.equal(mean(gradients), gradients)


def test_fp16_keeps_large_numbers_finite_and_infinity_infinite():
    gradients = torch.tensor([1e6, -1e6, torch.inf, -torch.inf, torch.nan, 1.0])
    result = mean(gradients, torch.float16)
    assert result[:2].tolist() == [65504.0, -65504.0]
    assert result[2:4].tolist() == [torch.inf, -torch.inf]
    assert result[4].isnan()


def test_overflow_of_fp16_reaches_a_loss_scaler():
    gradients = torch.tensor([1e6, 1.0])
    result = begin_mean(gradients, Traffic(1), torch.float16, clamps=False).wait()
    assert result.tolist() == [torch.inf, 1.0]


def test_mean_of_16_bits_is_computed_in_32():
    values = torch.full((4,), 1.0, dtype=torch.bfloat16)
    Traffic(3).average([values])  # the sum of one rank: a third, rounded once
    assert torch.equal(values, torch.full((4,), 1 / 3).bfloat16())


@pytest.mark.parametrize(
    "gradients",
    [
        torch.tensor([1 + 2**-12 + 1j]),
        torch.tensor([1 + 2**-10], dtype=torch.float16),
        torch.sparse_coo_tensor([[0, 2]], [1 + 2**-12, 3.0], (4,)),
    ],
    ids=["complex", "fp16", "sparse"],
)
def test_other_gradients_keep_their_format(gradients):
    result = mean(gradients, torch.bfloat16)
    assert result.dtype == gradients.dtype
    assert torch.equal(result.to_dense() if result.is_sparse else result, gradients.to_dense())


def test_bytes_are_those_of_a_ring():
    traffic = Traffic(4)
    traffic.count_all_reduce(1000)
    assert traffic.sent == 1500
    traffic.count_broadcast(1000)
    assert traffic.sent == 2250


def test_headers_of_gloo_are_counted():
    traffic = Traffic(2, "gloo")
    traffic.count_all_reduce(1000)
    assert traffic.sent == 1000 + 4 * GLOO_HEADERS


def test_tensors_are_sent_together():
    counted = []
    traffic = Traffic(1)
    traffic.count_all_reduce = counted.append
    tensors = [torch.randn(3), torch.randn(2, 2), torch.randn(5, dtype=torch.float64), torch.randn(4).t()]
    expected = [one.clone() for one in tensors]
    traffic.sum(tensors)
    assert counted == [4 * (3 + 4 + 4), 8 * 5]
    assert all(torch.equal(one, other) for one, other in zip(tensors, expected, strict=True))
