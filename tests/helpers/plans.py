"""Jobs, forecasts and emissions of worked examples for tests of the planner."""

from datetime import datetime, timedelta, timezone

from lightning_green.planning import Forecast, Job

START = datetime(2024, 5, 1, tzinfo=timezone.utc)


def hourly(values, start=START, **kwargs):
    return Forecast([start + timedelta(hours=h) for h in range(len(values))], values, **kwargs)


def job(work, window, **kwargs):
    return Job(work, deadline=START + timedelta(hours=window), **{"safety": 0.0, **kwargs})


def actions(answer):
    return "".join({"run": "R", "throttle": "T", "hold": "H", "exit": "X"}[slot.action] for slot in answer.slots)


def cost_of(sequence, values, work, task, lengths=(1.0,) * 6):
    """Return the emissions of one action per slot, independent of the planner; None if the deadline is missed."""
    remaining, state, total = work, "on", 0.0
    for action, value, length in zip(sequence, values, lengths, strict=True):
        if remaining <= 1e-9:
            break
        if action == "hold":
            if state == "out":
                return None
            total += value * (task.hold_power * length + (task.hold_cost if state == "on" else 0.0))
            state = "held"
        elif action == "exit":
            total += value * task.exit_cost if state != "out" else 0.0
            state = "out"
        else:
            level = task.levels[action]
            took = min(length, remaining / level.speed)
            back = {"on": 0.0, "held": task.hold_resume_cost, "out": task.resume_cost}[state]
            total += value * (back + level.power * took)
            remaining -= took * level.speed
            state = "on"
    return total if remaining <= 1e-9 else None
