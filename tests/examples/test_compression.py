import re

import pytest

from tests.examples.helpers import EXAMPLES, start
from tests.helpers.extras import needs_torch_pruning

pytest.importorskip("sklearn", reason="needs the extra `demo`: scikit-learn")


def output(folder, name, epochs):
    """Run an example and return its output."""
    return start(folder, EXAMPLES / f"{name}.py", "--epochs", epochs)


@needs_torch_pruning
@pytest.mark.slow
def test_pruning_example_halves_the_parameters(tmp_path):
    numbers = re.search(r"parameters (\d+) -> (\d+), multiply-adds (\d+) -> (\d+)", output(tmp_path, "pruning", 4))
    parameters, fewer, macs, less = map(int, numbers.groups())
    assert fewer <= 0.5 * parameters
    assert less < macs


@pytest.mark.slow
def test_quantization_example_exports_int8(tmp_path):
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason=f"needs the extra `compression`: {name}")
    numbers = re.search(r"weights (\d+) -> (\d+) bytes, same class ([\d.]+)%", output(tmp_path, "quantization", 3))
    assert int(numbers[2]) < 0.3 * int(numbers[1])
    assert float(numbers[3]) > 97
    assert (tmp_path / "digits.onnx").exists()


@pytest.mark.slow
def test_distillation_example_queries_the_teacher_once_per_image(tmp_path):
    numbers = re.search(
        r"computed (\d+) images, read (\d+) outputs from the cache", output(tmp_path, "distillation", 3)
    )
    assert numbers.groups() == ("1437", "2874")
