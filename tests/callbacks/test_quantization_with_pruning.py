import pytest

from lightning_green.callbacks.pruning import Pruning
from lightning_green.callbacks.quantization import QuantizationAwareTraining
from tests.helpers.compression_fits import Lit, assert_resumes_exactly, fit
from tests.helpers.extras import needs_torch_pruning


@pytest.mark.parametrize("first", [True, False])
def test_pruned_weights_are_zero_in_int8_in_either_callback_order(tmp_path, first):
    callbacks = [Pruning(0.8, end=0.5, scope="layer"), QuantizationAwareTraining(begin=0.6)]
    module, t = fit(tmp_path, *(callbacks if first else callbacks[::-1]))
    order = [type(c) for c in t.callbacks if hasattr(c, "compression_order")]
    assert order == [Pruning, QuantizationAwareTraining]
    state = callbacks[1].convert(module).state_dict()
    names = ["conv2d", "conv2d_1", "conv2d_2", "linear"]
    floats = [module.net.stem, module.net.block.conv1, module.net.block.conv2, module.net.fc]
    for name, layer in zip(names, floats, strict=True):
        integers = state[f"{name}_weight"]
        assert (integers[layer.weight == 0] == 0).all()
        assert (integers == 0).float().mean() >= 0.78


@needs_torch_pruning
@pytest.mark.parametrize("at_once", [True, False])
def test_channels_are_removed_before_quantization_begins(tmp_path, at_once):
    begin = 0.5 if at_once else 0.7
    callback = QuantizationAwareTraining(begin=begin)
    module, _ = fit(tmp_path, callback, Pruning(0.5, "channels", end=0.5))
    converted = callback.convert(module)
    assert converted.state_dict()["conv2d_weight"].shape[0] == module.net.stem.out_channels < 8
    with pytest.raises(ValueError, match="remove its last channels before quantization begins"):
        fit(tmp_path, QuantizationAwareTraining(begin=0.5), Pruning(0.5, "channels", end=0.8))


@pytest.mark.slow
@needs_torch_pruning
def test_channels_and_quantization_resume_exactly(tmp_path):
    assert_resumes_exactly(
        tmp_path,
        lambda: [
            QuantizationAwareTraining(begin=0.7, freeze=0.9),
            Pruning(0.5, "channels", begin=0.2, end=0.5, every_n_steps=2),
        ],
        steps=(3, 6, 9, 12, 15),
        make_module=lambda: Lit(width=12),
    )
