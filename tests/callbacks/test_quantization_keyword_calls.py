import pytest
import torch

from lightning_green.callbacks.quantization import QuantizationAwareTraining
from lightning_green.compression import export, onnx_session
from tests.helpers.compression_fits import (
    SaveAt,
    assert_equal,
    fit,
    trainer,
)
from tests.helpers.extras import needs_onnx
from tests.helpers.keyword_networks import LitTokens, TokenClassifier, sentences


@pytest.mark.sampled
@pytest.mark.parametrize("returns", ["model_output", "dataclass", "dict", "tuple"])
def test_network_called_by_keyword_with_labels_is_quantized(tmp_path, returns):
    torch.manual_seed(0)
    callback, module = QuantizationAwareTraining(begin=0.3), LitTokens(TokenClassifier(returns=returns))
    t = trainer(tmp_path, [callback])
    t.fit(module, sentences(), sentences(16))
    expected = TokenClassifier(returns=returns)(**next(iter(sentences(4))))
    output = module.model(**next(iter(sentences(4))))
    assert type(output) is type(expected)
    assert len(output) == 2 if isinstance(output, (tuple, dict)) else output.loss.dim() == 0
    converted = callback.convert(module)
    batch = next(iter(sentences(16)))
    assert callback.agreement(converted, module, batch).difference < 1e-3
    assert callback.agreement(module.model.eval(), module, batch).difference > 1e-3
    logits = converted(batch["input_ids"], batch["attention_mask"])
    assert (list(logits) if isinstance(logits, dict) else len(logits)) == (1 if returns == "tuple" else ["logits"])
    assert "labels" not in converted.code
    assert sum(value.dtype is torch.int8 for value in converted.state_dict().values()) == 2


def test_calls_without_labels_have_the_same_ranges(tmp_path):
    torch.manual_seed(0)
    callback, module = QuantizationAwareTraining(begin=0.3), LitTokens(TokenClassifier())
    t = trainer(tmp_path, [callback])
    t.fit(module, sentences())
    ranges = callback.quantized.state_dict()
    predicted = torch.cat(t.predict(module, sentences(16)))
    assert_equal(callback.quantized.state_dict(), ranges)
    batch = next(iter(sentences(48)))
    logits = callback.convert(module)(batch["input_ids"], batch["attention_mask"])["logits"]
    torch.testing.assert_close(predicted, logits, atol=1e-3, rtol=1e-3)


def test_agreement_does_not_depend_on_the_order_of_keywords(tmp_path):
    callback, module = QuantizationAwareTraining(begin=0.3), LitTokens(TokenClassifier())
    fit(tmp_path, callback, module=module, data=sentences())
    converted, batch = callback.convert(module), next(iter(sentences(16)))
    expected = callback.agreement(converted, module, batch)
    assert expected.difference < 1e-3
    for names in (reversed(batch), ("attention_mask", "input_ids")):
        given = {name: batch[name] for name in names}
        assert callback.agreement(converted, module, given).difference == pytest.approx(expected.difference, rel=1e-3)
    assert callback.agreement(converted, module, (batch["input_ids"], batch["attention_mask"])).difference < 1e-3


def test_keyword_calls_resume_exactly(tmp_path):
    torch.manual_seed(0)

    def run(ckpt=None, save=()):
        torch.manual_seed(0)
        model = TokenClassifier()
        model.dropout.p = 0.0
        module, callback = LitTokens(model), QuantizationAwareTraining(begin=0.4, freeze=0.7)
        t = trainer(tmp_path, [callback, SaveAt(tmp_path, save)])
        t.fit(module, sentences(), ckpt_path=ckpt, weights_only=True if ckpt else None)
        return module.state_dict(), callback.state_dict()

    whole = run(save=(6, 12))
    for step in (6, 12):
        assert_equal(run(tmp_path / f"{step}.ckpt"), whole)


@pytest.mark.slow
@needs_onnx
def test_network_called_by_keyword_is_exported(tmp_path):
    torch.manual_seed(0)
    callback, module = QuantizationAwareTraining(begin=0.3), LitTokens(TokenClassifier())
    trainer(tmp_path, [callback]).fit(module, sentences())
    batch = next(iter(sentences(16)))
    for inputs in ((), [batch], [(batch["input_ids"], batch["attention_mask"])]):
        written = export(callback.convert(module), tmp_path / "int8.onnx", inputs)
        assert written.agreement.difference < 0.01
    names = [value.name for value in onnx_session(tmp_path / "int8.onnx").get_inputs()]
    assert names == ["input_ids", "attention_mask"]
