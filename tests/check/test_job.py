from lightning_green.check.job import JOB_VARIABLE, Job, Stop


def test_job_is_read_by_the_processes_of_its_directory(tmp_path, monkeypatch):
    assert Job.of_process() is None
    job = Job(tmp_path / "job", (Stop(0, 1, 2), Stop(0, 1, 3, kill=True)), epochs=4, batches=5)
    job.write()
    monkeypatch.setenv(JOB_VARIABLE, str(tmp_path / "job"))
    assert Job.of_process() == job


def test_stops_are_reached_once_in_all_processes(tmp_path):
    job = Job(tmp_path, (Stop(0, 1, 2), Stop(0, 1, 3)))
    assert job.next_stop == Stop(0, 1, 2)
    job.reach()
    assert Job(tmp_path, job.stops).next_stop == Stop(0, 1, 3)
    job.reach()
    assert job.next_stop is None


def test_trace_has_the_records_of_all_processes(tmp_path):
    assert Job(tmp_path).trace() == []
    Job(tmp_path).append({"kind": "started"})
    Job(tmp_path).append({"kind": "stopped"})
    assert Job(tmp_path).trace() == [{"kind": "started"}, {"kind": "stopped"}]


def test_stops_in_words():
    assert Stop(0, 2, 0).describe() == "stopped before epoch 2"
    assert Stop(0, 2, 3).describe() == "stopped after batch 3 of epoch 2"
    assert Stop(1, 0, 3, kill=True).describe() == "killed in epoch 0, last saved after batch 3, fit 1"
    assert Stop(0, 2, 0, kill=True).describe() == "killed in epoch 2, last saved at its start"
