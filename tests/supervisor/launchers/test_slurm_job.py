"""Reading the description of a SLURM job. The real one is read in ``test_real_slurm.py``."""

import time

import pytest

from lightning_green.supervisor.launchers.slurm_job import SLURMError, SLURMJob, call, kill_wait, start_time

SHOWN = """JobId=9 ArrayJobId=7 ArrayTaskId=3 JobName=a name=with an equals sign
   UserId=me(1000) GroupId=me(1000) MCS_label=N/A
   Priority=4294901759 Nice=0 Account=(null) QOS=normal
   JobState=RUNNING Reason=None Dependency=(null)
   Requeue=1 Restarts=2 BatchFlag=1 Reboot=0 ExitCode=0:0
   RunTime=00:00:00 TimeLimit=00:05:00 TimeMin=N/A
   SubmitTime=2026-11-28T17:14:36 EligibleTime=2026-11-28T17:14:36
   StartTime=2026-11-28T17:14:37 EndTime=Unknown Deadline=N/A
   NumNodes=1 NumCPUs=1 NumTasks=1 CPUs/Task=2 ReqB:S:C:T=0:0:*:*
   Socks/Node=* NtasksPerN:B:S:C=4:0:*:* CoreSpec=*
   Command=/home/me/job.sh --lr=1 Requeue=0
   WorkDir=/home/me

"""


def test_fields_are_read_and_unset_ones_are_absent():
    job = SLURMJob.parse(SHOWN)
    assert job.is_running
    assert job.is_batch
    assert job.may_requeue
    assert job.fields["Command"] == "/home/me/job.sh --lr=1 Requeue=0"
    assert (job.fields["CPUs/Task"], job.fields["NtasksPerN:B:S:C"], job.fields["QOS"]) == ("2", "4:0:*:*", "normal")
    assert not {"Account", "Dependency", "EndTime"} & set(job.fields)


def test_times_are_seconds_since_the_epoch(monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert SLURMJob.parse(SHOWN).time("StartTime") == 1795853677.0
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()
    assert SLURMJob.parse(SHOWN).time("EndTime") is None


@pytest.mark.parametrize("text", ["", "\n\n", "slurm_load_jobs error: Invalid job id specified", "=", "a=\nb"])
def test_other_text_describes_no_running_job(text):
    job = SLURMJob.parse(text)
    assert not job.is_running
    assert not job.may_requeue
    assert job.time("EndTime") is None


def test_start_time_is_relative():
    assert start_time(time.time() + 90.2) == "now+90"
    assert start_time(time.time() - 90.0) == "now"


@pytest.mark.parametrize(
    ("script", "reason", "is_refused"),
    [
        ("echo 'Requested operation is presently disabled' >&2; exit 1", "Requested operation is presently", True),
        ("exit 3", "exit code 3", True),
        ("sleep 60", "has not answered within 1 s", False),
    ],
)
def test_failure_has_its_reason(tmp_path, script, reason, is_refused):
    program = tmp_path / "scontrol"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    with pytest.raises(SLURMError, match=reason) as raised:
        call([str(program)], timeout=1.0)
    assert raised.value.is_refused is is_refused


def test_missing_program_is_no_refusal(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(SLURMError, match="`scontrol` cannot be started") as raised:
        call(["scontrol"])
    assert not raised.value.is_refused
    assert kill_wait() == 30.0
