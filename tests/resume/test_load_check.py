import dataclasses

import numpy as np
import pytest
import torch

from lightning_green.resume.load_check import check_loads
from lightning_green.resume.plain_data import NotPlainError


def test_value_that_is_not_equal_when_read_back_is_refused():
    @dataclasses.dataclass
    class Odd(dict):
        pass

    with pytest.raises(NotPlainError):
        check_loads({"v": Odd()})
    meta = torch.empty(100, device="meta")
    check_loads({"v": meta, "w": torch.zeros(10**6), "nan": [float("nan"), torch.tensor(float("nan"))]})


class Alias(str):
    """A string that ``torch.save`` writes and ``weights_only=True`` refuses."""


def test_value_that_cannot_be_read_back_is_refused():
    with pytest.raises(NotPlainError, match=r"^name is a `tests\..*Alias`, which cannot be saved"):
        check_loads({"name": Alias("a")})


def test_large_tensors_are_not_written(monkeypatch):
    written = []
    save = torch.save
    monkeypatch.setattr(torch, "save", lambda state, file: (written.append(state), save(state, file)))
    check_loads({"large": torch.zeros(1000), "small": torch.arange(3), "array": np.arange(1000)})
    assert written[0]["large"].shape == (1,)
    assert written[0]["small"].tolist() == [0, 1, 2]
    assert written[0]["array"]["value"][1] == [1000]
