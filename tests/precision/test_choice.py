"""Choice of the precision."""

import pytest
import torch

from lightning_green import GreenMixedPrecision
from lightning_green.precision.choice import DeviceSupport, choose_precision
from tests.helpers.precision_fits import fit


@pytest.mark.parametrize(
    ("support", "expected"),
    [
        (DeviceSupport("cuda", True, True, True, True), "bf16-mixed"),
        (DeviceSupport("cuda", True, False, True, True), "16-mixed"),
        (DeviceSupport("cuda", True, False, True, False), "32-true"),
        (DeviceSupport("cpu", True, True, True, False), "bf16-mixed"),
        (DeviceSupport("cpu", True, False, True, False), "32-true"),
        (DeviceSupport("xla", False, True, False, False), "32-true"),
    ],
)
def test_auto_chooses_the_format_in_hardware(support, expected):
    assert choose_precision("auto", support)[0] == expected


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, "bf16-mixed, because the cpu device has bfloat16 in hardware."),
        ({"avx512_bf16": False, "amx_bf16": True}, "bf16-mixed, because the cpu device has bfloat16 in hardware."),
        ({"avx2": True}, "32-true, because the cpu device has neither bfloat16 nor fast float16 in hardware."),
    ],
)
def test_auto_logs_the_choice_and_its_reason(capabilities, expected, monkeypatch, caplog):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    with caplog.at_level("INFO"):
        _, trainer = fit(GreenMixedPrecision(), limit_train_batches=1)
    assert trainer.precision == expected.partition(",")[0]
    messages = [record.getMessage() for record in caplog.records if "GreenMixedPrecision" in record.getMessage()]
    assert messages == [f"GreenMixedPrecision: {expected}"]


def test_unsupported_format_raises():
    with pytest.raises(ValueError, match=r"precision='fp16'` does not run on this device \(cuda\)"):
        choose_precision("fp16", DeviceSupport("cuda", True, False, False, False))


def test_emulated_format_is_reported():
    choice = choose_precision("bf16", DeviceSupport("cpu", True, False, True, False))
    assert (choice.name, choice.emulated) == ("bf16-mixed", True)
    assert not choose_precision("bf16", DeviceSupport("cpu", True, True, True, False)).emulated
