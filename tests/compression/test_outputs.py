from collections import OrderedDict, namedtuple
from dataclasses import dataclass, field

import pytest
import torch

from lightning_green.compression.outputs import (
    OutputError,
    OutputStructure,
    compared_tensors,
    logits_of,
    only_tensor,
    output_tensors,
)
from tests.helpers.keyword_networks import ModelOutput

LOSS, LOGITS, HIDDEN = torch.tensor(2.0), torch.ones(2, 3), torch.zeros(2, 5)
Pair = namedtuple("Pair", "first second")


@dataclass
class Answer:
    logits: torch.Tensor
    name: str = "answer"
    later: int = field(default=0, init=False)


OUTPUTS = [
    LOGITS,
    (LOSS, LOGITS),
    [LOGITS, {"a": HIDDEN, "b": (None, 3)}],
    Pair(LOGITS, HIDDEN),
    OrderedDict(first=LOGITS),
    Answer(LOGITS),
    ModelOutput(loss=LOSS, logits=LOGITS),
    {"nested": ModelOutput(logits=Answer(LOGITS))},
]


@pytest.mark.parametrize("output", OUTPUTS, ids=lambda output: type(output).__name__)
def test_output_is_restored_in_its_own_classes(output):
    structure = OutputStructure(output)
    tensors = [tensor + 1 for tensor in structure.tensors(output)]
    restored = structure.restore(tensors)
    assert type(restored) is type(output)
    assert all(torch.equal(a, b) for a, b in zip(output_tensors(restored), tensors, strict=True))
    assert str(OutputStructure(restored).restore(structure.tensors(output))) == str(output)


def test_model_output_keeps_its_items_and_attributes():
    output = ModelOutput(loss=LOSS, logits=LOGITS)
    restored = OutputStructure(output).restore([LOSS + 1, HIDDEN])
    assert restored.loss == restored["loss"] == LOSS + 1
    assert restored.logits is restored["logits"] is HIDDEN
    assert restored.hidden_states is None


def test_plain_outputs_are_dictionaries_and_tuples_without_none():
    assert OutputStructure(ModelOutput(loss=LOSS, logits=LOGITS)).plain([None, HIDDEN]) == {"logits": HIDDEN}
    assert OutputStructure(Pair(LOGITS, [HIDDEN])).plain([None, HIDDEN]) == ([HIDDEN],)
    assert OutputStructure(LOGITS).plain([HIDDEN]) is HIDDEN


def test_outputs_of_other_types_are_rejected():
    with pytest.raises(OutputError, match="tensors or containers of tensors, got set"):
        OutputStructure((LOGITS, {1}))
    with pytest.raises(OutputError, match="got no tensor"):
        OutputStructure({"a": None})


def test_scalars_and_integers_are_not_compared():
    assert compared_tensors((LOSS, LOGITS, LOGITS.argmax(1))) == [LOGITS]
    assert compared_tensors(LOSS) == [LOSS]


def test_logits_are_the_item_the_attribute_or_the_only_tensor():
    assert logits_of(LOGITS, "student_output") is LOGITS
    assert logits_of({"hidden": HIDDEN, "logits": LOGITS}, "student_output") is LOGITS
    assert logits_of(Answer(LOGITS), "student_output") is LOGITS
    assert logits_of((LOSS, LOGITS), "student_output") is LOGITS
    with pytest.raises(
        ValueError, match=r"`student_output` should be a function .*, got tuple with \(2, 3\), \(2, 5\)"
    ):
        logits_of((LOGITS, HIDDEN), "student_output")
    with pytest.raises(ValueError, match="choose, got dict with no tensor"):
        only_tensor({"loss": LOSS}, "choose")
