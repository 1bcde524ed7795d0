"""Low-rank compression of gradients, with one rank."""

import pytest
import torch
import torch.distributed as dist

from lightning_green.resume.plain_data import from_plain, to_plain
from lightning_green.strategies.low_rank import LowRankCompression
from lightning_green.strategies.traffic import Traffic


@pytest.fixture(autouse=True)
def group(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def gradients(count, shape=(12, 10), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for _ in range(count)]


def sent(compression, gradient, name="weight"):
    gradient = gradient.clone()
    compression.reduce([(name, gradient)], Traffic(1))
    return gradient


@pytest.mark.parametrize(
    ("shape", "dtype", "pays"),
    [
        ((12, 10), torch.float32, True),
        ((12, 2, 5), torch.bfloat16, True),
        ((100,), torch.float32, False),
        ((), torch.float32, False),
        ((4, 4), torch.float32, False),  # 2 * (4 + 4) numbers are not less than 16
        ((4, 5), torch.float32, True),
        ((0, 10), torch.float32, False),
        ((12, 10), torch.complex64, False),
        ((12, 10), torch.int64, False),
    ],
)
def test_gradient_is_compressed_if_the_factors_are_smaller(shape, dtype, pays):
    assert LowRankCompression(2).pays(torch.zeros(shape, dtype=dtype)) is pays


def test_matrix_of_that_rank_is_sent_exactly():
    left, right = torch.randn(12, 2), torch.randn(2, 10)
    compression = LowRankCompression(2)
    torch.testing.assert_close(sent(compression, left @ right), left @ right)
    assert compression.errors["weight"].abs().max() < 1e-5


@pytest.mark.parametrize("shape", [(12, 10), (6, 4, 3, 3)])
def test_sent_gradients_and_error_sum_to_all_gradients(shape):
    compression, given = LowRankCompression(1), gradients(8, shape)
    total = sum(sent(compression, one) for one in given)
    error = compression.errors["weight"].reshape(shape)
    assert error.norm() > 0.1 * sum(given).norm()  # rank 1 does lose something in each step
    torch.testing.assert_close(total + error, sum(given), rtol=1e-4, atol=1e-4)


def test_factor_of_the_last_step_improves_the_next_one():
    (gradient,) = gradients(1)
    compression, cold = LowRankCompression(2), LowRankCompression(2)
    best = torch.linalg.svd(gradient).S[2:].norm()
    for _ in range(30):
        compression.errors.clear()
        sent(compression, gradient)
    sent(cold, gradient)
    assert compression.errors["weight"].norm() < 1.001 * best < cold.errors["weight"].norm()


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_gradient_that_is_not_finite_leaves_the_state_unchanged(value):
    compression, (first, second, third) = LowRankCompression(2), gradients(3)
    expected = LowRankCompression(2)
    for one in (first, third):
        last = sent(expected, one)
    second[3, 4] = value
    sent(compression, first)
    assert not sent(compression, second).isfinite().any()
    assert torch.equal(sent(compression, third), last)
    assert torch.equal(compression.errors["weight"], expected.errors["weight"])


def test_zero_gradients_do_not_end_the_compression():
    compression, (gradient,) = LowRankCompression(2), gradients(1)
    assert torch.equal(sent(compression, torch.zeros(12, 10)), torch.zeros(12, 10))
    assert sent(compression, gradient).norm() > 0.1 * gradient.norm()


def test_other_gradients_are_sent_whole():
    compression, bias, matrix = LowRankCompression(2), torch.randn(7), torch.randn(12, 10)
    expected = bias.clone()
    compression.reduce([("bias", bias), ("weight", matrix), ("odd", torch.ones(3, dtype=torch.complex64))], Traffic(1))
    assert torch.equal(bias, expected)
    assert list(compression.errors) == ["weight"]


def test_restored_state_continues_bit_for_bit():
    compression, given = LowRankCompression(2), gradients(6)
    for one in given[:3]:
        sent(compression, one)
    other = LowRankCompression(2)
    other.load_state_dict(from_plain(to_plain(compression.state_dict())))
    for one in given[3:]:
        assert torch.equal(sent(compression, one), sent(other, one))


def test_changed_rank_keeps_the_error_and_draws_a_new_factor():
    compression, (first, second) = LowRankCompression(2), gradients(2)
    sent(compression, first)
    other = LowRankCompression(3)
    other.load_state_dict(compression.state_dict())
    error = other.errors["weight"]
    result = sent(other, second)
    assert other.factors["weight"].shape == (10, 3)
    torch.testing.assert_close(result + other.errors["weight"], second + error, rtol=1e-4, atol=1e-4)


def test_half_precision_keeps_its_error_in_float32():
    compression, (gradient,) = LowRankCompression(2), gradients(1)
    assert sent(compression, gradient.bfloat16()).dtype == torch.bfloat16
    assert compression.errors["weight"].dtype == torch.float32


def test_compression_draws_no_global_random_numbers():
    torch.manual_seed(1)
    expected = torch.rand(())
    torch.manual_seed(1)
    sent(LowRankCompression(2), gradients(1)[0])
    assert torch.rand(()) == expected


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_gradient_on_a_gpu_is_the_same_as_on_a_cpu(tmp_path):
    compression, on_gpu = LowRankCompression(2), LowRankCompression(2)
    given = gradients(4)
    for gradient in given:
        sent(compression, gradient)
    dist.destroy_process_group()
    dist.init_process_group("nccl", init_method=f"file://{tmp_path}/nccl", rank=0, world_size=1)
    for gradient in given:
        sent(on_gpu, gradient.cuda())
    assert on_gpu.errors["weight"].is_cuda
    torch.testing.assert_close(on_gpu.errors["weight"].cpu(), compression.errors["weight"], rtol=1e-3, atol=1e-4)
