import pytest
import torch
from torch import nn

from lightning_green.compression.quantization.module_settings import ModuleSettings, changed_keys


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale, self.name, self.sizes, self.table = 0.5, "block", (1, 2), torch.ones(3)
        self.drop = nn.Dropout(0.1)
        self.other = [1]

    def forward(self, x):
        return self.drop(x) * self.scale


def _network():
    return nn.Sequential(Block(), nn.BatchNorm1d(4)).train()


CHANGES = {
    "number": (lambda n: setattr(n[0], "scale", 0.25), {("0", "scale")}),
    "number of a layer": (lambda n: setattr(n[0].drop, "p", 0.3), {("0.drop", "p")}),
    "text": (lambda n: setattr(n[0], "name", "other"), {("0", "name")}),
    "tuple": (lambda n: setattr(n[0], "sizes", (1, 3)), {("0", "sizes")}),
    "tensor": (lambda n: setattr(n[0], "table", torch.ones(3)), {("0", "table")}),
    "a number instead of a list": (lambda n: setattr(n[0], "other", 1), {("0", "other")}),
    "new": (lambda n: setattr(n[0], "extra", 3), {("0", "extra")}),
    "deleted": (lambda n: delattr(n[0], "scale"), {("0", "scale")}),
    "mode": (lambda n: n[1].eval(), {("1", "training")}),
    "hook": (lambda n: n[1].register_forward_hook(lambda *_: None), {("1", "hooks")}),
    "submodule": (lambda n: setattr(n[0], "drop", nn.Dropout(0.7)), {("0.drop", "p")}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_read_and_undone(change):
    network = _network()
    settings = ModuleSettings(network)
    before = settings.read(training=True)
    assert settings.read(training=True) is before  # nothing was replaced
    apply, keys = CHANGES[change]
    apply(network)
    after = settings.read(training=True)
    assert changed_keys(before, after) == keys
    assert settings.read(training=True) is after


def test_two_changes_between_two_reads_are_seen():
    network = _network()
    settings = ModuleSettings(network)
    for i in range(1, 200):  # numbers that are freed and created again may have the same place in memory
        before = settings.read(training=True)
        network[0].scale = 1000.0 + i
        network[0].scale = 2000.0 + i
        after = settings.read(training=True)
        assert (changed_keys(before, after), after["0", "scale"]) == ({("0", "scale")}, 2000.0 + i)


def test_a_call_in_another_mode_has_settings_of_its_own():
    network = _network()
    settings = ModuleSettings(network)
    training, evaluation = settings.read(training=True), settings.read(training=False)
    assert changed_keys(training, evaluation) == {(path, "training") for path in ("", "0", "0.drop", "1")}
    network[1].eval()
    assert settings.read(training=True)["1", "training"] is False


def test_attributes_are_left_out_until_all_are_considered():
    network = _network()
    settings = ModuleSettings(network)
    settings.note_written([("0", "name")])
    settings.ignore([("0", "scale")])
    before = settings.read(training=True)
    network[0].name, network[0].scale = "other", 0.75
    assert settings.read(training=True) == before
    settings.consider_all()
    assert changed_keys(before, settings.read(training=True)) == {("0", "scale")}
