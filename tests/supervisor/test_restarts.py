"""Restart decisions after failed attempts."""

from types import SimpleNamespace

from lightning_green.supervisor.restarts import LONGEST_BACK_OFF_SECONDS, RestartPolicy


def attempt(steps=0, traceback="", permanent_error=None):
    """Return the part of an attempt that the policy reads."""
    return SimpleNamespace(
        after=SimpleNamespace(steps=steps),
        traceback=traceback,
        permanent_error=permanent_error,
        last_line=traceback,
        reason="killed",
    )


def test_delay_doubles_up_to_a_limit():
    policy, delays = RestartPolicy(20, 0), []
    for _ in range(12):
        assert policy.record_failure(attempt()) is None
        delays.append(policy.delay)
    assert delays[:4] == [1.0, 2.0, 4.0, 8.0]
    assert delays[-1] == LONGEST_BACK_OFF_SECONDS


def test_gives_up_after_consecutive_failures_without_a_new_step():
    policy = RestartPolicy(2, 5)
    assert policy.record_failure(attempt(5)) is None
    assert policy.record_failure(attempt(5)) is None
    assert policy.record_failure(attempt(5)) == "Gave up after 3 consecutive failures without a new step: killed."
    assert RestartPolicy(0, 0).record_failure(attempt()) == "Gave up after 1 failure without a new step: killed."


def test_new_steps_and_pauses_reset_the_count():
    policy = RestartPolicy(1, 0)
    for steps in (2, 4, 6):
        assert policy.record_failure(attempt(steps)) is None
    policy.record_pause(attempt(9))
    assert policy.record_failure(attempt(9)) is None
    assert policy.record_failure(attempt(9)) is not None


def test_same_error_twice_without_a_new_step_ends_it():
    policy = RestartPolicy(9, 0)
    assert policy.record_failure(attempt(traceback="nan")) is None
    assert policy.record_failure(attempt(traceback="other")) is None
    assert "The same error occurred twice without a new step: other." in policy.record_failure(attempt(0, "other"))
    assert RestartPolicy(9, 0).record_failure(attempt(1, "nan")) is None


def test_errors_that_differ_in_numbers_are_the_same():
    policy = RestartPolicy(9, 0)
    assert policy.record_failure(attempt(traceback="<object at 0x7f3a> took 17.25 s")) is None
    assert "The same error occurred twice" in policy.record_failure(attempt(traceback="<object at 0xbeef> took 3.5 s"))


def test_permanent_error_ends_it_at_once():
    reason = RestartPolicy(9, 0).record_failure(attempt(permanent_error="ImportError: timm"))
    assert reason == "The command cannot start: ImportError: timm. Fix the error and rerun the same command."
