"""``lightning-green run --launcher slurm`` in jobs of a real SLURM of one node; skipped where none can be started."""

import os
import re
import signal
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest

from lightning_green.ledger.run_directory import RunDirectory
from lightning_green.report.status import status_text
from tests.helpers.ledgers import read_records
from tests.helpers.processes import Process, run_to_the_end
from tests.helpers.slurm_cluster import DEFAULT_KILL_WAIT, KILL_WAIT, Cluster, UnavailableError

HELPERS = Path(__file__).parents[2] / "helpers"
EXAMPLE = HELPERS.parents[1] / "examples" / "slurm.sbatch"
TRAINING = f"{sys.executable} {HELPERS / 'slurm_training.py'}"
FAKE = f"{sys.executable} {HELPERS / 'fake_training.py'}"
RUN = f"exec {sys.executable} -m lightning_green run --launcher slurm"
LATE_SECONDS = 15.0
CANCELED = "CANCELLED"  # codespell:ignore
ENDED = ("COMPLETED", "FAILED", "TIMEOUT", CANCELED)

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("slurm")]
nightly = pytest.mark.nightly


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        try:
            cluster.start()
        except UnavailableError as error:
            pytest.skip(str(error))
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="module")
def plain_weights(tmp_path_factory):
    """Return the digest of the weights of the plain run: without this package's callbacks, never interrupted."""
    found = {}

    def run(**variables):
        key = tuple(sorted(variables.items()))
        if key not in found:
            code, printed = run_to_the_end(TRAINING.split(), tmp_path_factory.mktemp("plain"), **variables)
            assert code == 0, printed
            found[key] = final(printed)
        return found[key]

    return run


def final(printed):
    """Return the steps and the digest of the weights of a training that has finished, and has so once."""
    (line,) = re.findall(r"^FINAL (\d+ [0-9a-f]{64})$", printed, re.MULTILINE)
    return line


def continued(printed):
    """Return the steps that the starts of a run have continued from."""
    return [int(step) for step in re.findall(r"continued from step (\d+)", printed)]


def started(folder):
    return [float(line) for line in (folder / "started").read_text().splitlines()]


def events(run_dir, name):
    return [record for record in read_records(run_dir) if record["event"] == name]


def planned_starts(run_dir):
    """Return the times at which the command had to start again, in seconds since the epoch."""
    return [
        datetime.fromisoformat(record["until"]).timestamp() - 3600.0 * record["job"]["return_time"]
        for record in events(run_dir, "paused")
    ]


@pytest.mark.timeout(2400)
@pytest.mark.parametrize(
    ("steps", "exits", "srun"),
    [
        pytest.param(60, [7, 20, 55], "srun ", id="3 exits with srun"),
        pytest.param(130, [*range(3, 37, 4), *range(43, 77, 4), 97, 118], "", id="20 exits", marks=nightly),
    ],
)
def test_planned_exits_requeue_the_job_and_keep_the_weights(slurm, plain_weights, tmp_path, steps, exits, srun):
    variables = {"STEPS": str(steps)}
    job = slurm.submit(
        tmp_path,
        f"{RUN} --run-dir {tmp_path}/run -- {srun}{TRAINING}",
        **variables,
        EXITS=",".join(map(str, exits)),
        RETURN="2",
        AWAY="26",
    )
    assert slurm.until_state(job, *ENDED, seconds=60 * (len(exits) + 1)) == "COMPLETED"
    printed = (tmp_path / "output").read_text()
    assert continued(printed) == exits
    assert final(printed) == plain_weights(**variables)
    assert slurm.job(job).fields["Restarts"] == str(len(exits))
    planned, began = planned_starts(tmp_path / "run"), started(tmp_path)[1:]
    assert len(planned) == len(began) == len(exits)
    assert [
        late for at, due in zip(began, planned, strict=True) if not -1.5 <= (late := at - due) <= LATE_SECONDS
    ] == []
    records = read_records(tmp_path / "run")
    assert [record["attempt"] for record in records if record["event"] == "started"] == [*range(1, len(exits) + 2)]
    assert len(list((tmp_path / "run").glob("ledger.*.jsonl"))) == 1
    kept = re.findall(r"keeps (.*)", printed)  # what the planner of each start knows about the nodes
    assert kept == ["None"] * (len(exits) + 1)


def test_array_task_that_exits_leaves_its_siblings_alone(slurm, tmp_path):
    words = "$([ $SLURM_ARRAY_TASK_ID = 2 ] && echo soon) slow"
    line = f"{RUN} --run-dir {tmp_path}/run$SLURM_ARRAY_TASK_ID -- {FAKE} {words}"
    array = slurm.submit(tmp_path, line, options=["--array=0-2"])
    for task in (0, 1):
        slurm.until_state(f"{array}_{task}", "RUNNING")
        slurm.until_printed(tmp_path / f"output.{task}", "Run directory")
    slurm.until_printed(tmp_path / "output.2", "is requeued")
    slurm.until_printed(tmp_path / "output.2", "Run directory", times=2)
    for task in (0, 1):
        assert slurm.state(f"{array}_{task}") == "RUNNING"
    for task in range(3):
        slurm.until_printed(tmp_path / f"run{task}" / "starts", "\n", times=1 + (task == 2))
        (tmp_path / f"run{task}" / "go").touch()
    for task in range(3):
        assert slurm.until_state(f"{array}_{task}", *ENDED) == "COMPLETED"
        assert slurm.job(f"{array}_{task}").fields["Restarts"] == ("1" if task == 2 else "0")


@pytest.fixture
def patient_slurm(slurm):
    """SLURM with its own default of the time in which a canceled job has to end."""
    slurm.set_kill_wait(DEFAULT_KILL_WAIT)
    yield slurm
    slurm.set_kill_wait(KILL_WAIT)


@pytest.mark.parametrize("srun", ["srun ", pytest.param("", marks=nightly)], ids=["srun", "without srun"])
def test_canceled_job_is_saved_and_not_requeued(patient_slurm, plain_weights, tmp_path, srun):
    slurm = patient_slurm
    variables = {"STEPS": "400", "STEP_SECONDS": "0.05"}
    line = f"{RUN} --run-dir {tmp_path}/run -- {srun}{TRAINING}"
    job = slurm.submit(tmp_path, line, **variables)
    slurm.until_printed(tmp_path / "output", "step 10")
    slurm.run("scancel", job)
    assert slurm.until_state(job, CANCELED) == CANCELED
    printed = slurm.until_printed(tmp_path / "output", "To continue:", DEFAULT_KILL_WAIT)
    assert "Stopped at step" in printed
    assert "is requeued" not in printed
    (interrupted,) = events(tmp_path / "run", "interrupted")
    assert events(tmp_path / "run", "failed") == []
    time.sleep(3.0)
    assert slurm.state(job) == CANCELED
    assert slurm.job(job).fields["Restarts"] == "0"
    if not srun:
        again = slurm.submit(tmp_path, line, STEPS="400", STEP_SECONDS="0.01")
        assert slurm.until_state(again, *ENDED) == "COMPLETED"
        printed = (tmp_path / "output").read_text()
        assert continued(printed) == [interrupted["global_step"]]
        assert final(printed) == plain_weights(STEPS="400", STEP_SECONDS="0")


@nightly
def test_time_limit_saves_and_requeues_at_once(slurm, plain_weights, tmp_path):
    job = slurm.submit(
        tmp_path,
        f"{RUN} --run-dir {tmp_path}/run -- srun {TRAINING}",
        options=["--time=1"],
        STEPS="500",
        STEP_SECONDS="0.1",
    )
    assert slurm.until_state(job, *ENDED, seconds=180) == "COMPLETED"
    printed = (tmp_path / "output").read_text()
    saved = [interrupted["global_step"] for interrupted in events(tmp_path / "run", "interrupted")]
    assert saved  # two on a slow machine
    assert continued(printed) == saved
    assert "The time limit of the job is near" in printed
    assert slurm.job(job).fields["Restarts"] == str(len(saved))
    assert final(printed) == plain_weights(STEPS="500", STEP_SECONDS="0")
    first, second = started(tmp_path)[:2]
    assert second - first < 60.0 + LATE_SECONDS  # not two minutes after the requeue


@nightly
@pytest.mark.parametrize("target", ["--batch", ""], ids=["B:USR1", "USR1"])
def test_signal_during_the_imports_ends_no_run(slurm, plain_weights, tmp_path, target):
    """To the batch script, the signal reaches the supervisor only. To the step, it kills the step."""
    variables = {"STEPS": "60"}
    line = f"{RUN} --run-dir {tmp_path}/run -- srun {TRAINING}"
    job = slurm.submit(tmp_path, line, IMPORT_SECONDS="4", **variables)
    slurm.until_printed(tmp_path / "output", "importing")
    slurm.run("scancel", "--signal=USR1", *filter(None, [target]), job)
    assert slurm.until_state(job, *ENDED) == "COMPLETED"
    printed = (tmp_path / "output").read_text()
    assert final(printed) == plain_weights(**variables)
    if target:
        assert "Exited with exit code" not in printed
        (interrupted,) = events(tmp_path / "run", "interrupted")
        assert continued(printed) == [interrupted["global_step"]]
        assert slurm.job(job).fields["Restarts"] == "1"
    else:
        assert "Attempt 1 failed: the process died before training started" in printed
        assert slurm.job(job).fields["Restarts"] == "0"


@nightly
@pytest.mark.parametrize("auto", ["", "off"], ids=["Lightning requeues", "Lightning does not requeue"])
def test_signal_to_the_step_saves_and_requeues_once(slurm, plain_weights, tmp_path, auto):
    variables = {"STEPS": "200", "STEP_SECONDS": "0.05"}
    line = f"{RUN} --run-dir {tmp_path}/run -- srun {TRAINING}"
    job = slurm.submit(tmp_path, line, NO_AUTO_REQUEUE=auto, **variables)
    slurm.until_printed(tmp_path / "output", "step 20")
    slurm.run("scancel", "--signal=USR1", job)
    assert slurm.until_state(job, *ENDED) == "COMPLETED"
    printed = (tmp_path / "output").read_text()
    (interrupted,) = events(tmp_path / "run", "interrupted")
    assert interrupted["signal"] == "SIGUSR1"
    assert continued(printed) == [interrupted["global_step"]]
    assert slurm.job(job).fields["Restarts"] == "1"
    assert final(printed) == plain_weights(STEPS="200", STEP_SECONDS="0")


@nightly
def test_job_that_may_not_be_requeued_submits_its_script_again(slurm, plain_weights, tmp_path):
    variables = {"STEPS": "60", "EXITS": "7,25"}
    line = f'echo "argument $1, $MINE"; {RUN} --fresh --run-dir {tmp_path}/run -- srun {TRAINING}'
    options, own = ["--no-requeue", "--time=7"], {"MINE": "a variable", **variables}
    job = slurm.submit(tmp_path, line, options=options, arguments=["first"], **own)
    printed = slurm.until_printed(tmp_path / "output", "FINAL", 120)
    jobs = [job, *re.findall(r"job (\d+) continues", printed)]
    assert len(set(jobs)) == 3
    for one in jobs:
        slurm.until_state(one, *ENDED)
        assert slurm.job(one).fields["TimeLimit"] == "00:07:00"
    assert [slurm.job(one).fields["ExitCode"] for one in jobs] == ["75:0", "75:0", "0:0"]
    assert printed.count("argument first, a variable") == 3
    assert continued(printed) == [7, 25]
    assert final(printed) == plain_weights(STEPS="60")


@nightly
def test_start_before_the_planned_time_is_queued_again(slurm, plain_weights, tmp_path):
    variables = {"STEPS": "60"}
    line = f"{RUN} --run-dir {tmp_path}/run -- srun {TRAINING}"
    job = slurm.submit(tmp_path, line, EXITS="7", AWAY="40", **variables)
    slurm.until_printed(tmp_path / "output", "is requeued")
    slurm.until_state(job, "PENDING")
    assert f"SLURM job {job} starts it again" in status_text(RunDirectory(tmp_path / "run"))
    slurm.run("scontrol", "update", f"JobId={job}", "StartTime=now")  # the begin time is lost
    assert slurm.until_state(job, *ENDED) == "COMPLETED"
    printed = (tmp_path / "output").read_text()
    assert printed.count("is requeued") == 2
    assert continued(printed) == [7]
    assert len(events(tmp_path / "run", "started")) == 2
    assert started(tmp_path)[-1] >= planned_starts(tmp_path / "run")[0] - 1.5
    assert final(printed) == plain_weights(**variables)


@nightly
@pytest.mark.parametrize("kind", ["scontrol is absent", "an interactive job"])
def test_run_that_cannot_be_requeued_waits_in_its_allocation(slurm, plain_weights, tmp_path, kind):
    variables = {"STEPS": "60", "EXITS": "7"}
    line = f"{RUN} --run-dir {tmp_path}/run -- {TRAINING}"
    if kind == "scontrol is absent":
        # longer than the default of KillWait, which SLURM cannot be asked for
        job = slurm.submit(tmp_path, "export PATH=/usr/bin:/bin", line, AWAY="45", **variables)
        assert slurm.until_state(job, *ENDED) == "COMPLETED"
        assert slurm.job(job).fields["Restarts"] == "0"
        printed = (tmp_path / "output").read_text()
        assert "cannot be requeued: `scontrol` cannot be started" in printed
    else:
        slurm.run("bash", "-c", f"cd {tmp_path}; srun {line.removeprefix('exec ')} > output 2>&1", **variables)
        printed = (tmp_path / "output").read_text()
        assert "is interactive, and SLURM requeues batch jobs only" in printed
    assert "The nodes stay allocated during the wait." in printed
    assert continued(printed) == [7]
    assert final(printed) == plain_weights(STEPS="60")


@nightly
def test_example_of_a_batch_script(slurm, plain_weights, tmp_path):
    """The script of the documentation, with options of `sbatch` for this cluster."""
    (tmp_path / "train.py").write_text((HELPERS / "slurm_training.py").read_text())
    variables = {"STEPS": "60"}
    path = f"{Path(sys.executable).parent}:{slurm.environment()['PATH']}"
    words = ["sbatch", "--parsable", f"--chdir={tmp_path}", EXAMPLE, "train.py"]
    job = slurm.run(*words, EXITS="7", PATH=path, **variables).strip()
    assert slurm.until_state(job, *ENDED) == "COMPLETED"
    (log,) = tmp_path.glob("train-*.log")
    assert continued(log.read_text()) == [7]
    assert final(log.read_text()) == plain_weights(**variables)
    assert slurm.job(job).fields["Restarts"] == "1"


@nightly
def test_run_continues_on_another_node(plain_weights, tmp_path):
    """The name of the machine differs; each node has its own ledger."""
    if os.geteuid() != 0:
        pytest.skip("another host name needs root")
    command = f"{sys.executable} -m lightning_green run --run-dir {tmp_path}/run -- {TRAINING}"
    for host, variables in (("node1", {"AWAY": "20"}), ("node2", {})):
        words = ["unshare", "--uts", "sh", "-c", f"hostname {host}; exec {command}"]
        with Process(words, tmp_path / "job", EXITS="7", STEPS="60", **variables) as process:
            if host == "node1":
                process.until(lambda running=process: "Exited until" in running.printed)
                assert process.kill(signal.SIGTERM) == 143
            else:
                assert process.wait() == 0
                printed = process.printed
    assert continued(printed) == [7]
    assert final(printed) == plain_weights(STEPS="60")
    assert {path.name for path in (tmp_path / "run").glob("ledger.*")} == {"ledger.node1.jsonl", "ledger.node2.jsonl"}
