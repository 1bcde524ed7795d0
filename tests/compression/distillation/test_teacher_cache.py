import numpy as np
import pytest
import torch

from lightning_green.compression.distillation.teacher_cache import TeacherCache, fingerprints

G = torch.Generator().manual_seed(0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.uint8, torch.int64, torch.float64])
def test_fingerprints_depend_on_the_content_only(dtype):
    x = (torch.rand(500, 3, 4, 4, generator=G) * 200).to(dtype)
    keys = fingerprints(x)
    assert len(keys.unique()) == 500
    assert torch.equal(keys[7:9], fingerprints(x[7:9].clone()))
    changed = x.clone()
    changed[0, 2, 3, 3] += 1
    assert fingerprints(changed)[0] != keys[0]
    assert torch.equal(fingerprints(changed)[1:], keys[1:])
    swapped = x[:1].flip(3)
    assert fingerprints(swapped)[0] != keys[0]


class Teacher:
    def __init__(self):
        self.asked = 0

    def __call__(self, x):
        self.asked += len(x)
        return x.flatten(1)[:, :3] * 2


@pytest.mark.parametrize("folder", [False, True])
def test_cache_queries_the_teacher_once_per_sample_and_keeps_the_order(tmp_path, folder):
    cache, teacher = TeacherCache(tmp_path / "c" if folder else None), Teacher()
    x = torch.randn(2000, 4, generator=G)
    order = torch.randperm(2000, generator=G)
    for chosen in (order[:700], order[300:1500], order, torch.tensor([5, 5, 6])):
        expected = (x[chosen, :3] * 2).half().float()
        assert torch.equal(cache.get(x[chosen], teacher), expected)
    assert teacher.asked == len(cache) == 2000
    assert (cache.hits, cache.misses) == (400 + 1500 + 3, 2000)
    twice = torch.randn(1, 4).repeat(3, 1)
    assert torch.equal(cache.get(twice, teacher), (twice[:, :3] * 2).half().float())
    assert len(cache) == 2001
    if not folder:
        other = TeacherCache()
        other.load_state_dict(cache.state_dict())
        other.get(x, teacher)
        assert other.misses == 0


def test_truncated_values_file_drops_incomplete_rows_only(tmp_path):
    teacher = Teacher()
    x = torch.randn(50, 4, generator=G)
    TeacherCache(tmp_path, "a").get(x, teacher)
    values = tmp_path / "values.f16"
    values.write_bytes(values.read_bytes()[:-7])  # in the middle of the row before the last
    again = TeacherCache(tmp_path, "a")
    assert len(again) == 48
    assert torch.equal(again.get(x, teacher), (x[:, :3] * 2).half().float())
    assert again.misses == 2
    assert np.fromfile(tmp_path / "keys.i64", np.int64).size == 50
    with pytest.raises(ValueError, match="contains the outputs of another teacher"):
        TeacherCache(tmp_path, "b")


def test_outputs_above_the_range_of_float16_are_rejected():
    with pytest.raises(ValueError, match="should be finite and below 65504"):
        TeacherCache().get(torch.ones(2, 3), lambda x: x * 1e6)
