"""torchrun as a launcher."""

from lightning_green.supervisor.launchers.torchelastic import TorchElasticLauncher


def test_run_id_marks_a_worker_even_if_it_is_empty():
    assert TorchElasticLauncher.detect({"TORCHELASTIC_RUN_ID": "none"})
    assert TorchElasticLauncher.detect({"TORCHELASTIC_RUN_ID": ""})
    assert not TorchElasticLauncher.detect({"RANK": "0"})


def test_variables_of_the_process_are_read_by_default(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert not TorchElasticLauncher.detect()
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert TorchElasticLauncher.detect()


def test_torchrun_neither_accepts_exit_codes_nor_resumes_planned_exits():
    launcher = TorchElasticLauncher({})
    assert not launcher.accepts_exit_codes
    assert not launcher.resumes_planned_exits
