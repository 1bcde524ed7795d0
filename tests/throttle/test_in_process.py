"""The actuators inside the process: threads and the duty cycle."""

import pytest
import torch

from lightning_green.throttle.actuators.duty_cycle import DutyCycle
from lightning_green.throttle.actuators.thread_count import ThreadCount


def test_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        threads = ThreadCount()
        assert [level.value for level in threads.levels()] == [4, 2, 1]
        threads.set(threads.levels()[1])
        assert torch.get_num_threads() == 2
        threads.restore()
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)


def test_duty_cycle_sleeps_for_the_rest_of_the_time():
    slept = []
    duty = DutyCycle([0.25], sleep=slept.append)
    duty.on_step(2.0)
    duty.set(duty.levels()[1])
    duty.on_step(2.0)
    duty.restore()
    duty.on_step(2.0)
    assert slept == [6.0]


@pytest.mark.parametrize("fractions", [[1.0], [0.0], [], [2.0]])
def test_a_duty_cycle_out_of_range(fractions):
    with pytest.raises(ValueError, match="`fractions` should"):
        DutyCycle(fractions)
