import copy

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

from lightning_green.callbacks.distillation import KnowledgeDistillation
from tests.helpers.compression_fits import (
    assert_equal,
    fit,
)
from tests.helpers.distillation_fits import (
    LitMasked,
    LitPositional,
    Masked,
    Segments,
    outputs,
    record_logits,
)
from tests.helpers.keyword_networks import LitTokens, TokenClassifier, sentences


def test_teacher_output_selects_the_logits_of_dense_predictions(tmp_path):
    big = nn.Conv2d(3, 4, 3, padding=1)
    callback = KnowledgeDistillation(lambda x: {"logits": big(x)}, teacher_output=lambda o: o["logits"])
    seen = record_logits(callback)
    module = Segments()
    first = outputs(copy.deepcopy(module.net), batches=1)[0]
    fit(tmp_path, callback, module=module, epochs=1)
    torch.testing.assert_close([theirs for _, theirs in seen], outputs(big))
    assert seen[0][0].shape == (8, 4, 8, 8)
    torch.testing.assert_close(seen[0][0], first)


@pytest.mark.parametrize("of_teacher", ["model_output", "tuple"])
@pytest.mark.parametrize("returns", ["model_output", "dataclass", "dict", "tuple"])
def test_network_called_by_keyword_with_labels_is_distilled(tmp_path, returns, of_teacher):
    torch.manual_seed(1)
    module, net = LitTokens(TokenClassifier(returns=returns)), TokenClassifier(24, of_teacher)
    callback = KnowledgeDistillation(
        net,
        {"standardized": 1.0, "decoupled": 1.0, "attention": 1.0, "hint": 1.0},
        layers={"encoder": "encoder"},
        channel_dim=-1,
    )
    seen = record_logits(callback)
    _, t = fit(tmp_path, callback, module=module, data=sentences(), epochs=1)
    with torch.no_grad():
        expected = [net.eval()(**batch) for batch in sentences()]
    expected = [output[-1] if of_teacher == "tuple" else output.logits for output in expected]
    torch.testing.assert_close([theirs for _, theirs in seen], expected)
    assert callback.losses.adapters.layers["encoder"].shape == (24, 16)
    assert t.callback_metrics["distillation/decoupled"] > 0


class Tokens(nn.Module):
    """Outputs and features of the shape (samples, tokens, width)."""

    def __init__(self, width=16, extra=0):
        super().__init__()
        self.project, self.body, self.head = nn.Linear(8, width), nn.Linear(width, width), nn.Linear(width, 5)
        self.extra = extra

    def forward(self, x):
        x = self.project(x.flatten(1, 2))
        x = torch.cat([x, x[:, : self.extra]], 1)
        return self.head(self.body(x)[:, :24])


class LitLanguage(LitMasked):
    def training_step(self, batch, batch_idx):
        return 0 * self.net(batch[0]).sum()


def test_classes_of_tokens_are_along_the_given_dimension(tmp_path):
    net = Tokens()

    def shifted(x):  # the same distribution at each position
        return net(x).detach() + 3 * torch.arange(24.0)[None, :, None]

    with pytest.raises(
        ValueError, match=r"`channel_dim` should be 1 or -1 for outputs with three dimensions, got None"
    ):
        fit(tmp_path, KnowledgeDistillation(shifted, "soft_targets"), module=LitLanguage(net))
    for dim, is_zero in ((-1, True), (1, False)):
        callback = KnowledgeDistillation(shifted, "soft_targets", channel_dim=dim)
        _, t = fit(
            tmp_path, callback, module=LitLanguage(copy.deepcopy(net)) if dim == 1 else LitLanguage(net), epochs=1
        )
        assert (t.callback_metrics["distillation/soft_targets"] < 1e-3) == is_zero


def test_adapters_of_tokens_map_their_width(tmp_path):
    callback = KnowledgeDistillation(Tokens(24), {"hint": 1.0}, layers={"body": "body"}, channel_dim=-1)
    fit(tmp_path, callback, module=LitLanguage(Tokens()), epochs=1)
    assert callback.losses.adapters.layers["body"].shape == (24, 16)
    more = KnowledgeDistillation(Tokens(24, extra=1), {"hint": 1.0}, layers={"body": "body"}, channel_dim=-1)
    with pytest.raises(ValueError, match="`layers` should name layers with the same samples and positions, but 'body'"):
        fit(tmp_path, more, module=LitLanguage(Tokens()))
    with pytest.raises(ValueError, match="`channel_dim` should be 1 or -1 for features of 'body'"):
        fit(tmp_path, KnowledgeDistillation(Tokens(), "hint", layers={"body": "body"}), module=LitLanguage(Tokens()))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.recurrent, self.unused, self.head = nn.LSTM(8, 16, batch_first=True), nn.Linear(2, 2), nn.Linear(16, 4)

    def forward(self, x):
        return self.head(self.recurrent(x.flatten(1, 2))[0][:, -1])


class TwoHeads(Masked):
    def forward(self, x):
        return super().forward(x), self.fc(x.flatten(1) + 1)


class LitTwoHeads(LitMasked):
    def training_step(self, batch, batch_idx):
        return functional.cross_entropy(self.net(batch[0])[0], batch[1])


@pytest.mark.parametrize(
    ("make_network", "module", "arguments", "message"),
    [
        (
            Recurrent,
            LitPositional,
            {"losses": "hint", "layers": {"recurrent": "recurrent"}},
            r"`layers` should name layers that return one tensor, .*'recurrent', got tuple with \(8, 24, 16\)",
        ),
        (
            Recurrent,
            LitPositional,
            {"losses": "hint", "layers": {"unused": "unused"}},
            "`layers` should name layers that are called in training, but 'unused' was not",
        ),
        (TwoHeads, LitTwoHeads, {}, r"`student_output` should be a function .*, got tuple with \(8, 4\), \(8, 4\)"),
    ],
)
def test_outputs_that_need_an_argument_raise_before_the_first_step(tmp_path, make_network, module, arguments, message):
    student = make_network()
    before = copy.deepcopy(student.state_dict())
    callback = KnowledgeDistillation(make_network(), **arguments)
    with pytest.raises(ValueError, match=message):
        fit(tmp_path, callback, module=module(student))
    assert_equal(student.state_dict(), before)


class NamedClasses(LitTokens):
    def training_step(self, batch, batch_idx):
        return functional.cross_entropy(self.model(batch["input_ids"], batch["attention_mask"]).logits, batch["y"])


def test_target_of_a_dictionary_without_labels_raises(tmp_path):
    data = [{name if name != "labels" else "y": value for name, value in batch.items()} for batch in sentences()]
    module, callback = NamedClasses(TokenClassifier()), KnowledgeDistillation(TokenClassifier(), "decoupled")
    with pytest.raises(ValueError, match=r"`target` should be a function .* dict with input_ids, attention_mask, y"):
        fit(tmp_path, callback, module=module, data=DataLoader(data, batch_size=None))
    callback = KnowledgeDistillation(TokenClassifier(), "decoupled", target=lambda batch: batch["y"])
    fit(tmp_path, callback, module=module, data=DataLoader(data, batch_size=None), epochs=1)
