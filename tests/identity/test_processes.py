"""Several trainings in one command, in sequence or in parallel: each has its own run."""

import sys

import pytest

from lightning_green.supervisor.command import read_command
from tests.helpers.processes import Process, green
from tests.helpers.script_training import CLOCK
from tests.helpers.user_scripts import (
    ALL,
    K_FOLD,
    ONE,
    PYTHON,
    restored,
    results,
    runs,
    script,
    start,
    steps_continued,
    straight,
    supervised,
)

pytestmark = pytest.mark.slow

LOOP = "for s in 1 2 3; do SEED=$s python train.py; done"


def expected(folder, text, *variables):
    """Return the results of a script with each of these variables, in one process to save starts."""
    alone = ALL.replace("VARIABLES", repr(variables)).replace("TEXT", repr(text.replace("CALLBACKS", "exact()")))
    return straight(folder, script(folder, alone))[0]


@pytest.mark.nightly
def test_sweep_trains_each_of_its_trainings(tmp_path):
    script(tmp_path, ONE)
    alone = expected(tmp_path / "alone", ONE, *({"SEED": seed} for seed in "123"))
    code, output = supervised(tmp_path, "bash", "-ec", LOOP, PATH=PYTHON, FAULT="kill@only:5")
    assert code == 0, output
    seen, trained = results(tmp_path)
    assert seen == alone
    assert sum(trained["1/0.01"]) < 12  # the killed one was continued
    assert len(runs(tmp_path / "run")) == 3
    assert len(steps_continued(tmp_path / "run")) == 1


def test_paused_sweep_waits_for_each_of_its_trainings(tmp_path):
    script(tmp_path, ONE, "carbon()")
    alone = expected(tmp_path / "alone", ONE, {"SEED": "1"}, {"SEED": "2"})
    loop = "for s in 1 2; do SEED=$s python train.py; done"  # ignores exit codes
    code, output = supervised(tmp_path, "bash", "-c", loop, options=["--clock", CLOCK], PATH=PYTHON)
    assert code == 0, output
    assert results(tmp_path)[0] == alone
    assert "(2 trainings are paused)" in output
    assert len(runs(tmp_path / "run")) == 2
    assert len(steps_continued(tmp_path / "run")) >= 2
    first, second = runs(tmp_path / "run")
    assert second[0]["time_utc"] >= first[0]["time_utc"]


@pytest.mark.nightly
def test_parallel_trainings_with_different_arguments_have_separate_runs(tmp_path):
    path = script(tmp_path, ONE)
    driver = tmp_path / "driver.py"
    driver.write_text(
        "import subprocess, sys\n"
        f"jobs = [[sys.executable, {str(path)!r}, '--lr', lr] for lr in ('0.1', '0.001')]\n"
        "codes = [job.wait() for job in [subprocess.Popen(job) for job in jobs]]\n"
        "sys.exit(max(abs(code) for code in codes))\n"
    )
    code, output = supervised(tmp_path, sys.executable, driver, FAULT="kill@only:5")
    assert code == 0, output
    seen, _ = results(tmp_path)
    assert set(seen) == {"/0.1", "/0.001"}
    assert seen == expected(tmp_path / "alone", ONE, {"LR": "0.1"}, {"LR": "0.001"})
    assert len(runs(tmp_path / "run")) == 2


def test_parallel_tasks_of_a_slurm_array_have_separate_directories(tmp_path):
    text = "import time\nNet.on_train_start = lambda self: time.sleep(3)\n" + ONE
    script(tmp_path, text, "[EmissionsTracker(meter=100.0)]")
    loop = "for s in 1 2; do SEED=$s SLURM_ARRAY_TASK_ID=$s python train.py & done; wait -n; wait -n"
    code, output = start(tmp_path, "bash", "-ec", loop, PATH=PYTHON)
    assert code == 0, output
    assert set(results(tmp_path)[0]) == {"1/0.01", "2/0.01"}
    assert len(list((tmp_path / "lightning_green").iterdir())) == 2


def test_parallel_trainings_with_equal_arguments_have_separate_runs(tmp_path):
    text = "import time\nNet.on_train_start = lambda self: time.sleep(3)\n" + ONE
    script(tmp_path, text, "[EmissionsTracker(meter=100.0), *exact()]")
    loop = "for s in 0.1 0.01; do LR=$s python train.py & sleep 0.2; done; wait -n; wait -n"
    code, output = start(tmp_path, "bash", "-ec", loop, PATH=PYTHON)
    assert code == 0, output
    assert set(results(tmp_path)[0]) == {"/0.1", "/0.01"}
    (home,) = (tmp_path / "lightning_green").iterdir()
    assert len(runs(home)) == 2
    assert "this training uses its own run directory" in output


def test_kill_between_two_fits_restores_the_first(tmp_path):
    text = K_FOLD.replace(
        "    best =", "    if fold == 1 and once('between'):\n        os.kill(os.getpid(), 9)\n    best ="
    )
    path = script(tmp_path, text)
    alone = expected(tmp_path / "alone", K_FOLD, {})
    code, output = supervised(tmp_path, sys.executable, path)
    assert code == 0, output
    seen, trained = results(tmp_path)
    assert seen == alone
    assert trained["fold 0"] == [10, 0]  # restored, not trained again
    assert restored(tmp_path / "run") == [None, None]
    assert "signal SIGKILL" in output


@pytest.mark.nightly
def test_restart_after_a_late_failure_does_not_train(tmp_path):
    path = script(tmp_path, ONE + "\nif not os.path.exists('disk'):\n    raise OSError('export failed')\n")
    code, output = supervised(tmp_path, sys.executable, path)
    assert code == 1
    assert "Rerun the same command to run only the code after the training." in output
    assert read_command(tmp_path / "run")["exit_code"] == 1
    (tmp_path / "disk").touch()
    code, output = supervised(tmp_path, sys.executable, path)
    assert code == 0, output
    assert "All trainings have finished. Only the code after them runs" in output
    assert results(tmp_path)[1] == {"/0.01": [12, 0, 0, 0]}
    code, output = supervised(tmp_path, sys.executable, path)  # after success, the same line trains again
    assert code == 0
    assert "The finished run was moved to" in output
    assert results(tmp_path)[1] == {"/0.01": [12, 0, 0, 0, 12]}


@pytest.mark.nightly
def test_command_that_skips_a_paused_training_has_not_finished(tmp_path):
    script(tmp_path, ONE, "carbon()")
    command = "[ -e second ] && exit 0; touch second; python train.py"
    code, output = supervised(tmp_path, "bash", "-c", command, options=["--clock", CLOCK], PATH=PYTHON)
    assert code == 1
    assert "did not continue these trainings" in output
    assert not (tmp_path / "results.jsonl").exists()


@pytest.mark.nightly
def test_rehearsal_is_not_continued_by_the_real_training(tmp_path):
    # The wait takes no time on a simulated clock, so the script blocks in its second start until the signal arrives.
    block = tmp_path / "block"
    block.touch()
    text = "import time\nif os.path.exists('block') and not once('start'):\n    once('blocked')\n    time.sleep(300)\n"
    path = script(tmp_path, text + ONE, "carbon()")
    line = ["--run-dir", tmp_path / "run"]
    with Process(green("run", *line, "--clock", CLOCK, "--", sys.executable, path), tmp_path) as process:
        process.until((tmp_path / "blocked.once").exists, 240)
        assert "Exited until" in process.printed
        process.kill(2)
        assert f"--clock {CLOCK}" in process.printed.split("To continue:")[1]
    block.unlink()
    code, output = supervised(tmp_path, sys.executable, path)
    assert code == 2
    assert f"was started on the simulated clock {CLOCK}, not on the system clock" in output
    code, output = start(tmp_path, *green("run", "--", sys.executable, path))  # its directory has another name
    assert code == 0
    assert "of it waiting" in output
    assert "late" not in output


def test_changed_arguments_in_the_same_directory_are_refused(tmp_path):
    path = script(tmp_path, ONE + "\nraise OSError('export failed')\n")
    assert supervised(tmp_path, sys.executable, path, "--lr", "0.1", options=["--max-restarts", "0"])[0] == 1
    code, output = supervised(tmp_path, sys.executable, path, "--lr", "0.2")
    assert code == 2
    assert "--lr 0.1` in" in output
    assert "--lr 0.2` in" in output
    assert len(results(tmp_path)[0]) == 1


@pytest.mark.sampled(every=2)
@pytest.mark.parametrize("how", ["LR", "SEED"])
def test_changed_value_is_refused_and_accepted_with_force(how, tmp_path):
    path = script(tmp_path, ONE)
    changed = {"LR": {"LR": "0.2"}, "SEED": {"SEED": "5"}}[how]
    given = {"FAULT": "error@only:7", "LIGHTNING_GREEN_RESUME": "1"}
    assert start(tmp_path, sys.executable, path, **given)[0] == 1
    code, output = start(tmp_path, sys.executable, path, **given, **changed)
    assert code == 1
    assert {"LR": "attributes.lr: 0.01 then, 0.2 now", "SEED": "seed: 0 then, 5 now"}[how] in output
    assert not (tmp_path / "results.jsonl").exists()
    code, output = start(tmp_path, sys.executable, path, **given, **changed, LIGHTNING_GREEN_FORCE="1")
    assert code == 0, output
    assert "continues with changed values because of --force" in output


@pytest.mark.nightly
def test_random_hyperparameter_does_not_restart_the_training_forever(tmp_path):
    text = "import random, time\n" + ONE.replace(
        "module = Net(lr)", "module = Net(lr)\nmodule.noise = random.Random(time.time_ns()).random()"
    )
    path = script(tmp_path, text, "carbon()")
    code, output = supervised(tmp_path, sys.executable, path, options=["--clock", CLOCK])
    assert code == 1
    assert "attributes.noise: 0." in output
    assert len(runs(tmp_path / "run")) == 1


@pytest.mark.nightly
def test_next_training_of_same_content_does_not_continue_a_failed_one(tmp_path):
    """Three repetitions of one command line train three times, although the loop ignores exit codes."""
    path = script(tmp_path, ONE)
    loop = f"for i in 1 2 3; do {sys.executable} {path}; done"
    code, output = supervised(tmp_path, "bash", "-c", loop, FAULT="error@only:7")
    assert code == 0, output
    found, trained = results(tmp_path)
    assert list(found) == ["/0.01"]
    assert len(runs(tmp_path / "run")) == 3
    assert sorted(steps for steps in trained["/0.01"] if steps) == [6, 12, 12]  # continued from step 6


@pytest.mark.nightly
def test_finished_training_after_lr_find_keeps_its_logger_version(tmp_path):
    text = """
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.tuner import Tuner
pl.seed_everything(0, verbose=False)
module = Net()
best = pl.callbacks.ModelCheckpoint(monitor="val_loss")
one = trainer(best, *CALLBACKS, logger=CSVLogger("."))
Tuner(one).lr_find(module, loader(), loader(8, 1), num_training=5, update_attr=False)
one.fit(module, loader(), loader(8, 1))
report("only", one, module, version=one.logger.version)
if once("after"):
    raise OSError("export failed")
"""
    path = script(tmp_path, text)
    code, output = supervised(tmp_path, sys.executable, path)
    assert code == 0, output
    found, trained = results(tmp_path)  # the second start reports the same version, best path and score
    assert trained["only"] == [17, 5]  # 5 of them in the learning rate finder
    assert found["only"]["version"] == 0
    assert found["only"]["score"] is not None
