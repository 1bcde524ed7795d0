"""A child process: environment, error output, exit code, traceback and signals."""

import os
import signal
import sys
import time

import pytest

from lightning_green.ledger.run_directory import RunDirectory
from lightning_green.supervisor.child import (
    ChildProcess,
    CommandStartError,
    child_environment,
    is_child_running,
)
from lightning_green.supervisor.command import Command
from lightning_green.supervisor.launchers import SLURMLauncher, kept_allocation
from lightning_green.supervisor.signals import Signals


def run(home, *words, beat=lambda: None):
    with Signals() as signals:
        return ChildProcess(Command(words, str(home)), home, dict(os.environ)).run(beat, signals)


def run_script(home, script, **options):
    return run(home, sys.executable, "-c", script, **options)


def test_result_has_exit_code_and_last_traceback(tmp_path, capfdbinary):
    script = (
        "import sys, traceback\ntry: 1 / 0\nexcept Exception: traceback.print_exc()\nraise RuntimeError('the last')"
    )
    result = run_script(tmp_path, script)
    assert result.code == 1
    assert result.traceback.startswith("Traceback (most recent call last)")
    assert "ZeroDivisionError" not in result.traceback
    assert result.traceback.rstrip().endswith("RuntimeError: the last")
    assert b"ZeroDivisionError" in capfdbinary.readouterr().err
    assert b"ZeroDivisionError" in (tmp_path / "stderr.log").read_bytes()


def test_traceback_of_an_earlier_process_is_not_reported(tmp_path):
    assert run_script(tmp_path, "raise RuntimeError('earlier')").traceback
    assert run_script(tmp_path, "pass").traceback == ""


PYTHON = [[sys.executable, "missing.py"], [sys.executable, "-m", "missing"]]
SHELLS = [["bash", "missing.sh"], ["sh", "./missing"], ["env", "missing"], ["bash", "-c", "missing"]]


@pytest.mark.parametrize("words", [*PYTHON, *SHELLS])
def test_missing_script_is_reported(words, tmp_path):
    result = run(tmp_path, *words)
    assert result.code != 0
    assert "missing" in result.traceback


def test_script_that_cannot_be_compiled_is_reported(tmp_path):
    (tmp_path / "script.py").write_text("import os\nif True\n    pass\n")
    found = run(tmp_path, sys.executable, str(tmp_path / "script.py")).traceback
    assert found.startswith(f'  File "{tmp_path}/script.py", line 2\n')
    assert found.splitlines()[-1].startswith("SyntaxError: ")


TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]


@pytest.mark.sampled(every=2)
@pytest.mark.distributed
@pytest.mark.parametrize(("script", "error"), [(None, "can't open file"), ("import missing_module", "missing_module")])
def test_error_of_a_script_below_torchrun_is_reported(tmp_path, script, error):
    path = tmp_path / "script.py"
    if script is not None:
        path.write_text(script)
    result = run(tmp_path, *TORCHRUN, str(path))
    assert result.code == 1
    assert error in result.traceback
    assert "ChildFailedError" not in result.traceback


@pytest.mark.parametrize(
    "end", ["import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "sys.stderr.write('Killed\\n'); sys.exit(1)"]
)
def test_warning_about_a_missing_module_is_no_missing_script(tmp_path, end):
    script = f"import sys; sys.stderr.write(\"Error caught was: No module named 'triton'\\n\"); {end}"
    result = run_script(tmp_path, script)
    assert result.code != 0
    assert result.traceback == ""


@pytest.mark.parametrize(("name", "code"), [("a-command-that-is-missing", 127), ("/", 126)])
def test_command_that_cannot_be_executed_raises(tmp_path, name, code):
    with pytest.raises(CommandStartError, match=rf"`{name}` cannot be started: ") as raised:
        run(tmp_path, name)
    assert raised.value.code == code


def test_lock_that_cannot_be_replaced_is_named(tmp_path):
    (tmp_path / "child.lock").mkdir()
    with pytest.raises(CommandStartError, match=r"child.lock cannot be replaced \(.*\). Remove it."):
        run_script(tmp_path, "pass")


def test_running_child_is_visible_and_receives_signals(tmp_path):
    found = []

    def beat():
        found.append(is_child_running(tmp_path))
        os.kill(os.getpid(), signal.SIGTERM)

    assert run_script(tmp_path, "import time; time.sleep(60)", beat=beat).code == -signal.SIGTERM
    assert found[0]
    assert not is_child_running(tmp_path)


def test_environment_names_a_launcher_that_releases_the_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    launcher = SLURMLauncher()
    environment = child_environment(tmp_path, "s/1", False, None, launcher, began=5.0)
    assert environment["LIGHTNING_GREEN_RELEASES"] == "SLURM"
    assert environment["LIGHTNING_GREEN_ALLOCATION"] == ""
    assert environment["LIGHTNING_GREEN_STARTED"] == "5.0"
    monkeypatch.setenv("LIGHTNING_GREEN_RELEASES", "SLURM")
    environment = child_environment(tmp_path, "s/1", False, None)  # of a supervisor within that training
    assert "LIGHTNING_GREEN_RELEASES" not in environment
    assert environment["LIGHTNING_GREEN_ALLOCATION"] == "SLURM job 7"


def test_environment_contains_the_run_and_the_attempt(tmp_path):
    environment = child_environment(tmp_path, "4f1e/2", force=False, clock=None)
    given = {name: value for name, value in environment.items() if name.startswith("LIGHTNING_GREEN_")}
    assert abs(time.time() - float(given.pop("LIGHTNING_GREEN_STARTED"))) < 600
    given.pop("LIGHTNING_GREEN_ALLOCATION")
    assert given == {
        "LIGHTNING_GREEN_RUN_DIR": str(tmp_path),
        "LIGHTNING_GREEN_SUPERVISED": str(os.getpid()),
        "LIGHTNING_GREEN_ATTEMPT": "4f1e/2",
        "LIGHTNING_GREEN_RESUME": "1",
    }
    assert (
        environment["PYTHONHASHSEED"] == child_environment(tmp_path, "s/7", force=False, clock=None)["PYTHONHASHSEED"]
    )
    environment = child_environment(tmp_path, "4f1e/2", force=True, clock="simulated:start=2024-05-02T00:00:00Z")
    assert environment["LIGHTNING_GREEN_FORCE"] == "1"
    assert environment["LIGHTNING_GREEN_CLOCK"] == "simulated:start=2024-05-02T00:00:00Z"


def test_hash_seed_is_that_of_the_run_or_of_the_user(tmp_path, monkeypatch):
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    first, second = (child_environment(tmp_path, f"s/{number}", False, None)["PYTHONHASHSEED"] for number in (1, 2))
    assert first == second
    assert 0 <= int(first) < 2**32
    monkeypatch.setenv("PYTHONHASHSEED", "5")
    assert child_environment(tmp_path, "s/1", False, None)["PYTHONHASHSEED"] == "5"


def test_id_of_a_single_wandb_run_is_passed_unless_the_user_sets_it(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_RUN_ID", raising=False)
    directory = RunDirectory(tmp_path)
    directory.record["loggers"] = {"0.0.CSVLogger": 3, "0.1.WandbLogger": "abc"}
    directory.save()
    assert child_environment(tmp_path, "s/1", False, None)["WANDB_RUN_ID"] == "abc"
    monkeypatch.setenv("WANDB_RUN_ID", "mine")
    assert child_environment(tmp_path, "s/1", False, None)["WANDB_RUN_ID"] == "mine"
    monkeypatch.delenv("WANDB_RUN_ID")
    directory.record["loggers"]["1.0.WandbLogger"] = "def"
    directory.save()
    assert "WANDB_RUN_ID" not in child_environment(tmp_path, "s/1", False, None)


@pytest.mark.parametrize("variable", [None, "SLURM_JOB_ID", "KUBERNETES_SERVICE_HOST"])
def test_command_gets_the_allocation_of_the_supervisor(tmp_path, monkeypatch, variable):
    for name in ("SLURM_JOB_ID", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, "10")
        monkeypatch.setenv("HOSTNAME", "trainer-0")
    kept = {None: None, "SLURM_JOB_ID": "SLURM job 10", "KUBERNETES_SERVICE_HOST": "Kubernetes pod trainer-0"}[variable]
    environment = child_environment(tmp_path, "s/1", False, None) | {"SLURM_JOB_ID": "11"}  # of a step by `srun`
    assert kept_allocation(environment) == kept
