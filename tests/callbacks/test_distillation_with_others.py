import pytest

from lightning_green.callbacks.distillation import KnowledgeDistillation
from lightning_green.callbacks.pruning import Pruning
from lightning_green.callbacks.quantization import QuantizationAwareTraining
from tests.helpers.compression_fits import Lit, assert_resumes_exactly, fit
from tests.helpers.distillation_fits import teacher
from tests.helpers.extras import needs_torch_pruning
from tests.helpers.keyword_networks import LitTokens, TokenClassifier, sentences


def test_hint_loss_reads_features_of_the_quantized_network(tmp_path):
    callbacks = [
        KnowledgeDistillation(teacher(), {"hint": 1.0, "standardized": 1.0}, layers={"block": "block"}),
        QuantizationAwareTraining(begin=0.5),
        Pruning(0.5, end=0.5),
    ]
    module, t = fit(tmp_path, *callbacks)
    order = [type(c) for c in t.callbacks if hasattr(c, "compression_order")]
    assert order == [Pruning, QuantizationAwareTraining, KnowledgeDistillation]
    assert t.callback_metrics["distillation/hint"] > 0
    integers = callbacks[1].convert(module).state_dict()["conv2d_1_weight"]
    assert (integers[module.net.block.conv1.weight == 0] == 0).all()


@needs_torch_pruning
def test_adapter_fits_a_layer_after_channels_are_removed(tmp_path):
    net = teacher()
    callbacks = [
        QuantizationAwareTraining(begin=0.6),
        KnowledgeDistillation(net, {"standardized": 1.0, "hint": 1.0}, layers={"block": "block"}),
        Pruning(0.5, "channels", begin=0.2, end=0.5),
    ]
    module, _ = fit(tmp_path, *callbacks)
    assert callbacks[0].convert(module).state_dict()["conv2d_weight"].shape[0] == module.net.stem.out_channels < 8
    assert callbacks[1].losses.adapters.layers["block"].shape == (16, module.net.block.conv2.out_channels)


def everything():
    return [
        KnowledgeDistillation(teacher(), cache="memory"),
        QuantizationAwareTraining(begin=0.6, freeze=0.9),
        Pruning(0.6, begin=0.1, end=0.5, every_n_steps=2),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["32-true", pytest.param("bf16-mixed", marks=pytest.mark.nightly)])
def test_all_compression_callbacks_resume_exactly(tmp_path, precision):
    module, state = assert_resumes_exactly(
        tmp_path, everything, steps=(1, 4, 9, 11, 14, 17), precision=precision, make_module=lambda: Lit("adam")
    )
    assert len(state["callbacks"]) >= 3
    assert (module.net.block.conv1.weight == 0).float().mean() > 0.4


def test_networks_called_by_keyword_are_pruned_distilled_and_quantized(tmp_path):
    qat = QuantizationAwareTraining(begin=0.5)
    module = LitTokens(TokenClassifier())
    callbacks = [qat, Pruning(0.5, end=0.5), KnowledgeDistillation(TokenClassifier(24))]
    _, t = fit(tmp_path, *callbacks, module=module, data=sentences())
    assert t.callback_metrics["distillation/standardized"] > 0
    assert (module.model.encoder.weight == 0).float().mean() > 0.3
    assert list(qat.convert(module)(*list(next(iter(sentences())).values())[:2])) == ["logits"]
