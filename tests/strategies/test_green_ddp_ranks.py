"""Trainings with GreenDDPStrategy on two ranks."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.helpers.processes import environment

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from ranks import CLOCK, Case, Judge  # noqa: E402
from zygote import Zygote  # noqa: E402

pytestmark = [pytest.mark.distributed, pytest.mark.slow, pytest.mark.xdist_group("green_ddp")]
SCRIPT = ROOT / "tests" / "helpers" / "green_ddp_training.py"


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """Return what both ranks report of each case."""
    return train(tmp_path_factory.mktemp("cases"))


def train(folder, *names, **variables):
    line = [sys.executable, str(SCRIPT), str(folder), *names]
    done = subprocess.run(line, env=environment(**variables), capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    first, second = (json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1))
    return {name: (first[name], second[name]) for name in first}


@pytest.mark.parametrize(
    "name",
    [
        *(
            "none",
            "bf16",
            "fp16",
            "low_rank",
            "accumulated",
            "unused",
            "static",
            "views",
            "compiled",
            "odd",
            "odd_bf16",
        ),
        *("sparse", "two", "overflow"),
    ],
)
def test_ranks_have_the_same_weights_after_every_step(name, cases):
    first, second = cases[name]
    assert first["finite"]
    assert len(first["digests"]) == 12
    assert first["digests"] == second["digests"]
    # an accumulation window has one step, and the step of the overflow is skipped
    assert len({*first["digests"]}) == {"accumulated": 5, "overflow": 11}.get(name, 12)


@pytest.mark.parametrize("name", ["none", "bf16", "fp16", "low_rank", "average"])
def test_counted_bytes_are_those_of_the_sockets(name, cases):
    counted, sockets = (sum(rank[key] for rank in cases[name]) for key in ("counted", "sockets"))
    assert counted == pytest.approx(sockets, rel=0.05)


def test_compression_sends_fewer_bytes(cases):
    bytes_of = {name: cases[name][0]["counted"] for name in ("none", "bf16", "fp16", "low_rank")}
    assert bytes_of["bf16"] == bytes_of["fp16"] < 0.55 * bytes_of["none"]
    assert bytes_of["low_rank"] < 0.12 * bytes_of["none"]


def test_gradients_are_sent_once_per_accumulation_window(cases):
    assert cases["accumulated"][0]["steps"] == 4
    assert cases["accumulated"][0]["counted"] < 0.5 * cases["static"][0]["counted"]


@pytest.mark.parametrize(
    ("name", "equal"), [("average", [3, 7, 11]), ("unused_average", [0, 1, 4, 7, 10]), ("two_average", [0, 1, 4, 10])]
)
def test_ranks_have_the_same_weights_after_each_average(name, equal, cases):
    first, second = (rank["digests"] for rank in cases[name])
    assert [number for number, one in enumerate(first) if one == second[number]] == equal
    assert cases[name][0]["digest"] == cases[name][1]["digest"]  # the last step is followed by an average


def test_each_rank_has_errors_of_its_own(cases):
    first, second = (rank["errors"] for rank in cases["overflow"])
    assert set(first) == {"net.0.weight", "net.3.weight", "kernel.weight", "sometimes.weight"}
    assert set(cases["compiled"][0]["errors"]) == set(first)
    assert all(0.0 < one < float("inf") for one in [*first.values(), *second.values()])
    assert first != second


def test_errors_follow_the_loss_scale(cases):
    doubled, constant = cases["scales"][0]
    assert doubled == pytest.approx(constant, rel=2e-4)


def test_checkpoint_of_lightning_contains_the_mean_of_the_models(cases):
    for rank in cases["average_checkpoint"]:
        assert rank["difference"] < 1e-6
    first, second = cases["average_checkpoint"]
    assert first["own"] != second["own"]
    assert first["digest"] == second["digest"]


def test_checkpoint_of_lightning_restores_the_compression(cases):
    for rank in cases["checkpoint"]:
        assert rank["restored"] < 1e-5 < 100e-5 < rank["lost"]


def run_cases(folder, chosen):
    """Return what was not exact."""
    with Zygote(preload=("ranks_training",), variables={"LIGHTNING_GREEN_CLOCK": CLOCK}) as zygote:
        judge = Judge(folder, zygote, keep=False)
        return {case.stop: found for case in chosen if (found := judge.run(case))[0] != "exact"}


def test_stopped_training_ends_with_the_weights_of_an_uninterrupted_one(tmp_path):
    cases = [Case("green_low_rank", 2, "exit@7:0"), Case("green_average", 2, "SIGKILL@13:1")]
    assert run_cases(tmp_path, cases) == {}


@pytest.mark.nightly
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("strategy", ["green_low_rank", "green_accumulate", "green_average"])
def test_stop_at_each_step(strategy, tmp_path):
    assert run_cases(tmp_path, [Case(strategy, 2, f"exit@{step}:0") for step in range(1, 21)]) == {}


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two NVIDIA GPUs")
def test_ranks_on_gpus_have_the_same_weights_after_every_step(tmp_path):
    names = ("none", "bf16", "fp16", "low_rank", "unused", "static", "views", "two", "average", "checkpoint")
    found = train(tmp_path, *names, ACCELERATOR="gpu")
    for name in names[:-2]:
        first, second = found[name]
        assert first["finite"]
        assert first["digests"] == second["digests"], name
    averaged = [one == other for one, other in zip(*(rank["digests"] for rank in found["average"]), strict=True)]
    assert [number for number, equal in enumerate(averaged) if equal] == [3, 7, 11]
    assert found["checkpoint"][0]["restored"] < 0.1 * found["checkpoint"][0]["lost"]
