import random

import numpy as np
import pytest
import torch

from lightning_green.resume.random_states import (
    RandomStream,
    capture_random_states,
    restore_random_states,
    seed_random_states,
)


def draw():
    return torch.rand(()).item(), float(np.random.rand()), random.random()


@pytest.fixture(autouse=True)
def restored():
    states = capture_random_states()
    yield
    restore_random_states(states)


def test_restored_states_repeat_the_draws(tmp_path):
    np.random.randn()  # NumPy keeps the second of two normal numbers
    random.gauss(0, 1)
    torch.save(capture_random_states(), tmp_path / "states")
    expected = (draw(), np.random.randn(), random.gauss(0, 1))
    restore_random_states(torch.load(tmp_path / "states", weights_only=True))
    assert (draw(), np.random.randn(), random.gauss(0, 1)) == expected


def test_seed_sets_all_three_generators():
    seed_random_states(7)
    first = draw()
    seed_random_states(7)
    assert draw() == first
    seed_random_states(8)
    assert all(one != other for one, other in zip(draw(), first, strict=True))


def test_stream_continues_where_it_was_exited_and_restores_the_outer_states():
    seed_random_states(1)
    expected_outside = [draw(), draw()]
    seed_random_states(2)
    expected_inside = [draw(), draw()]

    seed_random_states(1)
    stream = RandomStream(2)
    inside, outside = [], []
    for _ in range(2):
        with stream:
            inside.append(draw())
        outside.append(draw())
    assert inside == expected_inside
    assert outside == expected_outside


def test_stream_starts_from_saved_states():
    seed_random_states(3)
    saved = capture_random_states(with_cuda=False)
    expected = draw()
    with RandomStream(saved):
        assert draw() == expected
