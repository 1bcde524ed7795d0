"""Workers of data loaders under signals, with real workers."""

import os
import signal
import subprocess
import sys
import time

import pytest
from torch.utils.data import DataLoader, Dataset

from lightning_green.resume import worker_signals
from lightning_green.resume.worker_signals import protect_workers, set_training
from tests.helpers.processes import environment


class Numbers(Dataset):
    def __len__(self):
        return 40

    def __getitem__(self, index):
        return os.getpid()


@pytest.fixture(autouse=True)
def training():
    set_training(trains=True)
    yield
    set_training(trains=False)


def seen_in_worker(worker_id):
    os.environ["SEEN_BY_THE_WORKER"] = str(worker_id)


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_ignore_signals_while_a_fit_trains(context):
    loader = DataLoader(Numbers(), batch_size=2, num_workers=1, multiprocessing_context=context)
    assert protect_workers(loader) is not None
    batches = iter(loader)
    worker = int(next(batches)[0])
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
        os.kill(worker, number)
    time.sleep(0.1)
    assert {int(pid) for batch in batches for pid in batch} == {worker}


def test_signal_ends_a_worker_after_the_fit():
    loader = DataLoader(Numbers(), batch_size=2, num_workers=1, persistent_workers=True)
    protect_workers(loader)
    worker = int(next(iter(loader))[0])
    set_training(trains=False)
    os.kill(worker, signal.SIGTERM)
    (process,) = loader._iterator._workers
    process.join(30)
    assert process.exitcode == 0  # which `DataLoader` does not report as an error


def test_function_of_the_user_is_called_and_restored():
    loader = DataLoader(Numbers(), num_workers=1, worker_init_fn=seen_in_worker)
    undo = protect_workers(loader)
    assert protect_workers(loader) is None
    assert loader.worker_init_fn.inner is seen_in_worker
    undo()
    assert loader.worker_init_fn is seen_in_worker


def test_loaders_without_workers_stay_as_they_are():
    assert protect_workers(DataLoader(Numbers())) is None
    assert protect_workers([1, 2]) is None


STUCK = """
import signal, sys, time
import torch
from torch.utils.data import DataLoader, Dataset
from lightning_green.resume import worker_signals
worker_signals.END_SECONDS = 0.5
class Stuck(Dataset):
    def __len__(self):
        return 9
    def __getitem__(self, index):
        if index == 1:
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # as in a library that does not return
            time.sleep(100)
        return index
loader = DataLoader(Stuck(), num_workers=1, persistent_workers=sys.argv[1] == "persistent")
worker_signals.protect_workers(loader)
worker_signals.set_training(True)
batches = iter(loader)
print(int(next(batches)), flush=True)
sys.exit(3)  # in the middle of a fit
"""


def test_process_ends_although_a_worker_is_stuck():
    done = subprocess.run(
        [sys.executable, "-c", STUCK, "persistent"], env=environment(), timeout=60, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (3, "0\n"), done.stderr


def test_flag_is_shared_once():
    assert worker_signals._training_flag() is worker_signals._training_flag()
    assert worker_signals._training_flag().is_shared()
