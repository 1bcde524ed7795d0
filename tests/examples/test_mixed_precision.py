import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_green.precision.choice import NAMES

EXAMPLE = Path(__file__).parents[2] / "examples" / "mixed_precision.py"
pytest.importorskip("sklearn", reason="needs the extra `demo`: scikit-learn")


@pytest.mark.sampled(every=3)
@pytest.mark.slow
@pytest.mark.parametrize("precision", ["auto", "fp16", "bf16"])
def test_example_learns_in_each_precision(precision, tmp_path):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("LIGHTNING_GREEN_")}
    environment |= {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), "--precision", precision],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = re.search(r"precision (\S+), accuracy ([\d.]+), skipped steps (\d+)", done.stdout)
    assert found[1] == NAMES.get(precision, found[1])
    assert float(found[2]) > 0.9
