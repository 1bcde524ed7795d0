import pytest
import torch
from torch import nn

from lightning_green.compression.inputs import canonical, input_names
from tests.helpers.keyword_networks import Named

X = torch.arange(6.0).view(3, 2)


class Gathered(nn.Module):
    def forward(self, *parts, **options):
        return parts[0]


def test_canonical_form_does_not_depend_on_how_arguments_are_passed():
    network, mask = Named(), torch.ones(3)
    forms = [((X, None, mask), {}), ((X,), {"mask": mask}), ((), {"mask": mask, "x": X, "labels": None})]
    assert all(set(canonical(network, *form)) == {"x", "mask"} for form in forms)
    assert canonical(network, (), {"x": X}) == (X,)
    assert list(canonical(network, (), {"labels": mask, "x": X})) == ["x", "labels"]
    assert canonical(Gathered(), (X, mask), {}) == (X, mask)
    with pytest.raises(ValueError, match=r"network without `\*args` next to arguments by keyword, got Gathered"):
        canonical(Gathered(), (X,), {"mask": mask})


def test_tensors_are_named_after_arguments_and_places():
    assert input_names(Named(), (X, 2.0, [X, {"a": X}])) == ["x", "mask_0", "mask_1_a"]
    assert input_names(Named(), {"x": X, "labels": X}) == ["x", "labels"]
    assert input_names(Gathered(), (X, X)) == ["parts_0", "parts_1"]
