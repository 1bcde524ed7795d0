import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
pytest.importorskip("sklearn", reason="needs the extra `demo`: scikit-learn")


def printed(folder, name, epochs):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("LIGHTNING_GREEN_")} | {
        "OMP_NUM_THREADS": "1"
    }
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), "--epochs", str(epochs)]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_pruning(tmp_path):
    pytest.importorskip("torch_pruning", reason="needs the extra `compression`: torch-pruning")
    numbers = re.search(r"parameters (\d+) -> (\d+), multiply-adds (\d+) -> (\d+)", printed(tmp_path, "pruning", 4))
    parameters, fewer, macs, less = map(int, numbers.groups())
    assert fewer <= 0.5 * parameters
    assert less < macs


@pytest.mark.slow
def test_quantization(tmp_path):
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason=f"needs the extra `compression`: {name}")
    numbers = re.search(r"weights (\d+) -> (\d+) bytes, same class ([\d.]+)%", printed(tmp_path, "quantization", 3))
    assert int(numbers[2]) < 0.3 * int(numbers[1])
    assert float(numbers[3]) > 97
    assert (tmp_path / "digits.onnx").exists()


@pytest.mark.slow
def test_distillation(tmp_path):
    numbers = re.search(
        r"asked for (\d+) images, answered from the cache (\d+) times", printed(tmp_path, "distillation", 3)
    )
    assert numbers.groups() == ("1437", "2874")
