"""The sentences that describe how to continue a run are true: for a script, and for a notebook."""

import re
import sys
import uuid

import pytest

from lightning_green.run.continuing import continue_interrupted, continue_paused, is_interactive
from tests.helpers.script_training import CLOCK
from tests.helpers.user_scripts import restored, results, script, start, straight

NOTEBOOK = """
import sys, uuid
sys.argv = ["/usr/lib/python3/dist-packages/ipykernel_launcher.py", "-f", f"/run/kernel-{uuid.uuid4()}.json"]
def cell():
    pl.seed_everything(0, verbose=False)
    module = Net()
    one = trainer(*CALLBACKS)
    one.fit(module, loader(), loader(8, 1))
    report("only", one, module)
try:
    cell()
except SystemExit as error:
    print("SystemExit", error.code)
"""


@pytest.fixture
def command(monkeypatch):
    """This process is one of a script."""
    monkeypatch.setattr(sys, "argv", ["/here/package/train.py", "--lr", "1"])
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "package.train", "--lr", "1"])
    monkeypatch.delattr(sys, "ps1", raising=False)
    for name in ("LIGHTNING_GREEN_RUN_DIR", "LIGHTNING_GREEN_CLOCK"):
        monkeypatch.delenv(name, raising=False)


def test_command_of_a_script_is_the_one_that_started_it(command, monkeypatch, tmp_path):
    assert not is_interactive()
    assert continue_paused(tmp_path) == "To continue, run: python -m package.train --lr 1"
    monkeypatch.setenv("LIGHTNING_GREEN_RUN_DIR", "a b")
    assert continue_paused(tmp_path).endswith("env 'LIGHTNING_GREEN_RUN_DIR=a b' python -m package.train --lr 1")
    assert continue_interrupted(tmp_path) == (
        f"To continue: lightning-green run --run-dir {tmp_path} -- python -m package.train --lr 1"
    )


def test_command_of_a_rehearsal_has_its_clock(command, monkeypatch, tmp_path):
    spec = "simulated:start=2024-05-02T00:00:00+00:00,batch=1,checkpoint=0,restart=0"
    monkeypatch.setenv("LIGHTNING_GREEN_CLOCK", spec)
    assert f"--run-dir {tmp_path} --clock {spec} -- python" in continue_interrupted(tmp_path).replace("'", "")


def test_worker_of_a_launcher_prints_no_command_of_its_own(command, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert continue_interrupted(tmp_path) == (
        f"The run is in {tmp_path}. To continue it, start the same command again with LIGHTNING_GREEN_RESUME=1."
    )


@pytest.mark.parametrize("kernel", ["/usr/lib/ipykernel_launcher.py", "/usr/lib/colab_kernel_launcher.py"])
def test_notebook_is_recognized_by_its_kernel(command, monkeypatch, tmp_path, kernel):
    monkeypatch.setattr(sys, "argv", [kernel, "-f", f"/run/kernel-{uuid.uuid4()}.json"])
    assert is_interactive()
    assert "kernel" not in continue_paused(tmp_path).replace("restart the kernel", "")


def test_interpreter_with_a_prompt_is_interactive(command, monkeypatch):
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    assert is_interactive()


@pytest.mark.sampled(every=2)
@pytest.mark.slow
@pytest.mark.parametrize(
    ("callbacks", "fault"),
    [
        ("exact()", "term@only:5"),
        (
            '[EmissionsTracker(grid=grid(), meter=300.0), CarbonScheduler(deadline="10d", resume_cost=0.001, '
            'hold_power=0.9, on_pause="exit")]',
            "",
        ),
    ],
    ids=["interrupted", "paused"],
)
def test_notebook_continues_as_its_message_says(tmp_path, callbacks, fault):
    expected, _ = straight(tmp_path / "straight", script(tmp_path / "straight", NOTEBOOK, "exact()"))
    path = script(tmp_path / "notebook", NOTEBOOK, callbacks)
    variables, code = {"LIGHTNING_GREEN_CLOCK": CLOCK, "FAULT": fault}, 0
    for _ in range(9):
        code, output = start(path.parent, sys.executable, path, **variables)
        assert code == 0, output
        if results(path.parent)[0]:
            break
        assert "ipykernel_launcher.py" not in output
        assert "use a script and `lightning-green run" in output or "as requested" in output or "exact()" in callbacks
        found = dict(re.findall(r"os\.environ\['(\w+)'\] = '([^']+)'", output))
        assert "LIGHTNING_GREEN_RUN_DIR" in found
        variables |= found
    starts = restored(variables["LIGHTNING_GREEN_RUN_DIR"])
    assert starts[0] is None
    assert len(starts) > 1
    assert all(starts[1:])
    assert results(path.parent)[0]["only"]["weights"] == expected["only"]["weights"]
