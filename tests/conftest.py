"""Every test starts from a clean process and one seed: no run of another test, no variable of the caller's."""

import operator
import os
import random
import signal
import sys
import zlib

import pytest

# `nohup make test &` ignores some signals, which tests send to themselves and to their processes
signal.signal(signal.SIGINT, signal.default_int_handler)
for _number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
    signal.signal(_number, signal.SIG_DFL)


def pytest_ignore_collect(collection_path):
    """Leave the scripts that tests start alone: collecting doctests would import, and so run, them."""
    if collection_path.suffix == ".py" and not collection_path.name.startswith(("test_", "conftest")):
        return True
    return None


def pytest_collection_modifyitems(items):
    """Leave the full product of the matrices marked ``sampled`` to the nightly tests."""
    matrices = {}
    for item in items:
        if item.get_closest_marker("sampled") is not None:
            matrices.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for cases in matrices.values():
        for case in set(cases) - set(sample_of(cases)):
            case.add_marker(pytest.mark.nightly)


def sample_of(cases):
    """Return every n-th case of a test, or enough cases that each value of each of its parameters is in one of them."""
    every = cases[0].get_closest_marker("sampled").kwargs.get("every")
    if every is not None:
        return cases[::every]
    chosen, seen = [], set()
    for case in sorted(cases, key=lambda case: ("slow" in case.keywords, zlib.crc32(case.nodeid.encode()))):
        values = {(name, repr(value)) for name, value in case.callspec.params.items()}
        if values - seen:
            chosen.append(case)
            seen |= values
    return chosen


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    """Remove the caller's variables for runs and W&B; variables that a test sets are removed after it."""
    for name in list(os.environ):
        if name.startswith(("LIGHTNING_GREEN_", "WANDB_")) and name != "LIGHTNING_GREEN_DATA":
            monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_MODE", "offline")


@pytest.fixture(autouse=True)
def clean_process(clean_environment):
    """End the run of a test in this process, W&B's too, and give the signals back."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    current = sys.modules.get("lightning_green.run.coordinator")  # a test that never trains imports no PyTorch
    if current is not None:
        current.close_current_run()
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        wandb.finish()
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def one_seed():
    """Give every test the same random numbers, whichever tests ran before it: weights that no test names too."""
    random.seed(0)
    for package, seed in (("numpy", "random.seed"), ("torch", "manual_seed")):
        if package in sys.modules:  # a test that never trains imports no PyTorch
            operator.attrgetter(seed)(sys.modules[package])(0)
