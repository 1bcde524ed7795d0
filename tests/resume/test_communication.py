"""What communication hooks and averagers keep, with one process."""

import functools
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist
from lightning.pytorch.demos.boring_classes import BoringModel
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import PowerSGDState, powerSGD_hook
from torch.distributed.algorithms.model_averaging.averagers import PeriodicModelAverager
from torch.nn.parallel import DistributedDataParallel

from lightning_green.resume.communication import Communication
from lightning_green.resume.errors import InexactStateError
from lightning_green.resume.plain_data import NotPlainError, from_plain, to_plain

COUNTS = {"calls": 0}
RESIDUAL = None


@pytest.fixture(autouse=True)
def group(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def trainer_of(state=None, hook=None):
    torch.manual_seed(0)
    module = BoringModel()
    module.layer = nn.Linear(32, 32)
    model = DistributedDataParallel(module)
    if hook is not None:
        model.register_comm_hook(state, hook)
    strategy = SimpleNamespace(model=model, root_device=torch.device("cpu"))
    return SimpleNamespace(strategy=strategy, lightning_module=module, callbacks=[], world_size=1)


def train(trainer, steps):
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        trainer.strategy.model(torch.randn(4, 32, generator=generator)).square().mean().backward()


def average(bucket):
    future = torch.futures.Future()
    future.set_result(bucket.buffer())
    return future


class Errors:
    __slots__ = ("errors", "group", "steps")

    def __init__(self):
        self.group, self.errors, self.steps = dist.group.WORLD, {}, 0


def keeps_in_its_state(state, bucket):
    state.errors[bucket.index()] = bucket.buffer() * 0.5
    state.steps += 1
    return average(bucket)


def keeps_in_a_global(state, bucket):
    COUNTS["calls"] += 1
    return average(bucket)


def keeps_in_a_closure():
    errors, steps = [], 0

    def hook(state, bucket):
        nonlocal steps
        steps += 1
        errors.append(float(bucket.buffer().sum()))
        return average(bucket)

    return hook


class Empty:
    pass


def creates_an_attribute(state, bucket):
    if not hasattr(state, "residual"):
        state.residual, state.steps = torch.zeros_like(bucket.buffer()), 0
    state.residual, state.steps = state.residual * 0.5 + bucket.buffer(), state.steps + 1
    return average(bucket)


def creates_an_attribute_of_the_state_in_a_tuple(state, bucket):
    return creates_an_attribute(state[1], bucket)


def fills_a_variable_of_a_closure():
    residual = None

    def hook(state, bucket):
        nonlocal residual
        residual = bucket.buffer() * 0.5 + (0 if residual is None else residual)
        return average(bucket)

    return hook


def assigns_a_global(state, bucket):
    global RESIDUAL
    RESIDUAL = bucket.buffer() * 0.5 + (0 if RESIDUAL is None else RESIDUAL)
    return average(bucket)


def has_an_attribute():
    def hook(state, bucket):
        return creates_an_attribute(hook, bucket)

    return hook


class Private:
    __slots__ = ("__steps", "__weakref__")

    def __init__(self):
        self.__steps = 0

    def hook(self, state, bucket):
        self.__steps += 1
        return assigns_a_global(self, bucket)


class WithStateDict:
    """Has an attribute that cannot be saved, and a state that can."""

    def __init__(self):
        self.lock, self.steps = threading.Lock(), 0

    def state_dict(self):
        return {"steps": self.steps}

    def load_state_dict(self, state):
        self.steps = state["steps"]


def counts_in_its_state(state, bucket):
    state.steps += 1
    return average(bucket)


class Method:
    def __init__(self):
        self.steps = 0

    def hook(self, state, bucket):
        self.steps += 1
        return average(bucket)


def values(communication):
    return repr(to_plain([item["value"] for item in communication.capture()["hooks"]]))


def power():
    return PowerSGDState(None, 1, 2, min_compression_rate=0.5), powerSGD_hook


@pytest.mark.parametrize(
    "make",
    [
        power,
        lambda: (Errors(), keeps_in_its_state),
        lambda: (WithStateDict(), counts_in_its_state),
        lambda: (None, keeps_in_a_closure()),
        lambda: (None, Method().hook),
        lambda: (None, functools.partial(keeps_in_its_state, Errors())),
        lambda: (Empty(), creates_an_attribute),
        lambda: ((None, Empty()), creates_an_attribute_of_the_state_in_a_tuple),
        lambda: (None, fills_a_variable_of_a_closure()),
        lambda: (None, assigns_a_global),
        lambda: (None, has_an_attribute()),
        lambda: (None, Private().hook),
    ],
    ids=[
        *(
            "power_sgd",
            "state",
            "state_dict",
            "closure",
            "method",
            "partial",
            "created",
            "tuple",
            "variable",
            "global",
            "function",
        ),
        "private",
    ],
)
def test_states_of_hooks_continue(make, monkeypatch):
    def hook(state, bucket):  # DDP checks the signature, which a partial function does not have
        return function(bucket) if isinstance(function, functools.partial) else function(state, bucket)

    monkeypatch.setitem(globals(), "RESIDUAL", None)
    state, function = make()
    trainer = trainer_of(state, hook if isinstance(function, functools.partial) else function)
    before = Communication(trainer)
    before.begin()
    train(trainer, 4)
    saved = from_plain(to_plain(before.capture()))
    expected = values(before)
    assert saved["hooks"]

    globals()["RESIDUAL"] = None
    state, function = make()
    other = trainer_of(state, hook if isinstance(function, functools.partial) else function)
    after = Communication(other)
    after.restore(saved)
    assert values(after) == expected


def test_container_of_the_script_that_a_hook_uses_continues():
    trainer = trainer_of(None, keeps_in_a_global)
    before = Communication(trainer)
    before.begin()
    train(trainer, 3)
    saved, kept = before.capture(), COUNTS
    COUNTS["calls"] = 0
    Communication(trainer_of(None, keeps_in_a_global)).restore(saved)
    assert COUNTS == {"calls": 3}
    assert COUNTS is kept


def test_state_continues_in_a_later_fit_of_the_process(monkeypatch):
    monkeypatch.setitem(COUNTS, "calls", 0)
    state = Errors()
    trainer = trainer_of(state, keeps_in_a_global)
    train(trainer, 3)
    state.errors[0], state.steps = torch.ones(1), 3
    before = Communication(trainer)
    before.begin()
    train(trainer, 3)
    state.steps = 6
    saved = before.capture()

    COUNTS["calls"], created = 0, Errors()
    Communication(trainer_of(created, keeps_in_a_global)).restore(saved)
    assert (COUNTS, created.errors, created.steps) == ({"calls": 6}, {0: torch.ones(1)}, 6)


class Phases:
    def __init__(self, phase):
        self.phase, self.generator, self.trace = phase, np.random.RandomState(0), np.zeros(2)


def alternates(state, bucket):
    state.phase = 1 - state.phase
    state.trace += state.generator.random(2)
    if hasattr(state, "odd"):
        del state.odd
    else:
        state.odd = bucket.buffer().clone()
    return average(bucket)


def test_calls_of_hooks_while_the_buckets_are_set_change_no_state():
    trainer = trainer_of(Phases(0), alternates)
    before = Communication(trainer)
    before.begin()
    train(trainer, 4)
    saved, state = before.capture(), Phases(1)
    saved["hooks"] = [item for item in saved["hooks"] if item["is_setting"]]
    Communication(trainer_of(state, alternates)).restore(saved)
    assert (state.phase, state.trace.tolist(), hasattr(state, "odd")) == (1, [0, 0], False)
    assert state.generator.random() == np.random.RandomState(0).random()


def test_setting_that_the_script_has_changed_keeps_its_new_value():
    def state(rate):
        return PowerSGDState(None, 1, 2, min_compression_rate=rate)

    trainer = trainer_of(state(0.5), powerSGD_hook)
    before = Communication(trainer)
    before.begin()
    train(trainer, 3)
    saved, changed = before.capture(), state(0.25)
    Communication(trainer_of(changed, powerSGD_hook)).restore(saved)
    assert (changed.min_compression_rate, changed.iter) == (0.25, 3)


def test_state_that_cannot_be_saved_is_named():
    state = Errors()
    state.errors = {"lock": open}
    with pytest.raises(NotPlainError, match=r"the state of a communication hook, Errors\.errors, is a `dict`, which"):
        Communication(trainer_of(state, keeps_in_its_state)).capture()


@pytest.mark.parametrize("other", [(), (Empty(), keeps_in_its_state)])
def test_other_hook_is_refused(other):
    trainer = trainer_of(Errors(), keeps_in_its_state)
    saved = Communication(trainer).capture()
    with pytest.raises(InexactStateError, match="other communication hooks"):
        Communication(trainer_of(*other)).restore(saved)


def test_other_buckets_are_refused():
    trainer = trainer_of()
    train(trainer, 2)
    saved = Communication(trainer).capture()
    other = trainer_of()
    other.strategy.model = DistributedDataParallel(other.lightning_module, bucket_cap_mb=0.0001)
    with pytest.raises(InexactStateError, match="other gradient buckets"):
        Communication(other).restore(saved)


def test_averager_in_an_attribute_continues():
    trainer = trainer_of()
    trainer.lightning_module.averager = PeriodicModelAverager(period=4)
    trainer.lightning_module.averager.step = 7
    saved = Communication(trainer).capture()
    other = trainer_of()
    other.lightning_module.averager = PeriodicModelAverager(period=4)
    Communication(other).restore(saved)
    assert other.lightning_module.averager.step == 7
