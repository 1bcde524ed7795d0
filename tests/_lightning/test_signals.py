import signal

import pytest
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.trainer.connectors.signal_connector import _HandlersCompose, _SignalConnector

from lightning_green._lightning.signals import pop_received_sigterm, requeue_signal, user_handlers
from tests.helpers.trainers import quiet_trainer


def test_user_handlers_are_found_below_those_of_lightning(tmp_path):
    def mine(number, frame):
        pass

    connector = _SignalConnector(quiet_trainer(tmp_path))
    nested = _HandlersCompose([_HandlersCompose([mine, connector._sigterm_handler_fn]), connector._sigterm_notifier_fn])
    assert user_handlers(nested) == [mine]


@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.SIG_IGN, None, signal.default_int_handler])
def test_default_handlers_are_not_user_handlers(handler):
    assert user_handlers(handler) == []


def test_received_sigterm_is_returned_once(tmp_path):
    trainer = quiet_trainer(tmp_path)
    trainer._signal_connector.received_sigterm = True
    assert pop_received_sigterm(trainer)
    assert not pop_received_sigterm(trainer)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (SLURMEnvironment(auto_requeue=True), signal.SIGUSR1),
        (SLURMEnvironment(auto_requeue=True, requeue_signal=signal.SIGHUP), signal.SIGHUP),
        (SLURMEnvironment(auto_requeue=False), None),
    ],
)
def test_requeue_signal_is_that_of_slurm(environment, expected, tmp_path, monkeypatch):
    for name, value in {"JOB_ID": "7", "NTASKS": "1", "PROCID": "0", "LOCALID": "0", "JOB_NAME": "train"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert requeue_signal(quiet_trainer(tmp_path, plugins=[environment])) == expected


def test_no_requeue_signal_without_slurm(tmp_path, monkeypatch):
    monkeypatch.delenv("SLURM_NTASKS", raising=False)
    assert requeue_signal(quiet_trainer(tmp_path)) is None
