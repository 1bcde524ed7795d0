"""Selection of the GPUs of the job."""

import pynvml
import pytest

from lightning_green.energy.gpus import job_gpus


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("-1", []),
        ("2,0", [2, 0]),
        ("0,-1,2", [0]),
        ("0,9,2", [0]),
        ("GPU-cc33,GPU-aa11", [2, 0]),
        ("GPU-c", [2]),
        ("GPU-a", []),  # ambiguous
        ("nonsense", []),
    ],
)
def test_gpus_are_selected_as_in_cuda(driver, monkeypatch, visible, expected):
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    gpus, _ = job_gpus(pynvml)
    assert [gpu.index for gpu in gpus] == expected


def test_index_among_different_models_has_note(driver, monkeypatch):
    driver.cards[1].model = "NVIDIA L4"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert "name them by UUID" in job_gpus(pynvml)[1][0]
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    assert job_gpus(pynvml)[1] == []
