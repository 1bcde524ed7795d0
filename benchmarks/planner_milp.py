"""A reference for the planner: the best plan in hourly slots, from SciPy's mixed-integer solver."""

from __future__ import annotations

import numpy as np

from lightning_green.planning import Job


def minimum_by_milp(job: Job, values: np.ndarray) -> float:
    """Return the minimum emissions of ``job`` in hourly slots, by mixed-integer programming.

    Binary: ``run[l, t]``, ``hold[t]``, ``exit[t]``, ``over[t]`` (the work is done), exactly one per slot, and the four
    switches. Continuous: the used part of a slot, which is 1 except in the slot in which the work ends.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp

    slots, count = len(values), len(job.levels)
    kinds = [f"run{index}" for index in range(count)] + ["hold", "exit", "over"]
    switches = ["exit_switch", "restart", "enter", "resume", "last"]
    names = [*kinds, *switches, *(f"used{index}" for index in range(count))]
    place = {name: index * slots for index, name in enumerate(names)}
    size = len(names) * slots
    cost, rows, low, high = np.zeros(size), [], [], []
    runs = [f"run{index}" for index in range(count)]

    def at(name: str, slot: int) -> int:
        return place[name] + slot

    def add(terms: list[tuple[int, float]], least: float, most: float) -> None:
        row = np.zeros(size)
        for index, factor in terms:
            row[index] += factor
        rows.append(row)
        low.append(least)
        high.append(most)

    before = {"running": "run", "throttled": "run", "held": "hold", "out": "exit"}[job.state]
    for slot, value in enumerate(values.tolist()):
        for index, level in enumerate(job.levels):
            cost[at(f"used{index}", slot)] = level.power * value
            # Used only if it runs, and in full unless it is the last slot of work.
            add([(at(f"used{index}", slot), 1), (at(f"run{index}", slot), -1)], -np.inf, 0)
            add([(at(f"used{index}", slot), 1), (at(f"run{index}", slot), -1), (at("last", slot), 1)], 0, np.inf)
        cost[at("hold", slot)] = job.hold_power * value
        for name, energy in (
            ("exit_switch", job.exit_cost), ("restart", job.resume_cost), ("enter", job.hold_cost),
            ("resume", job.hold_resume_cost),
        ):  # fmt: skip
            cost[at(name, slot)] = energy * value
        add([(at(name, slot), 1) for name in kinds], 1, 1)

        def was(name: str, slot: int = slot) -> tuple[list[tuple[int, float]], float]:
            """Return terms and constant of the indicator that the previous slot was ``name``."""
            if slot == 0:
                return [], float(before == name)
            group = runs if name == "run" else [name]
            return [(at(part, slot - 1), 1.0) for part in group], 0.0

        now = {"run": [(at(part, slot), 1.0) for part in runs], "hold": [(at("hold", slot), 1.0)],
               "exit": [(at("exit", slot), 1.0)]}  # fmt: skip
        pairs = [("exit_switch", "run", "exit"), ("exit_switch", "hold", "exit"), ("restart", "exit", "run"),
                 ("enter", "run", "hold"), ("resume", "hold", "run")]  # fmt: skip
        for switch, source, target in pairs:
            terms, constant = was(source)
            negative = [(index, -factor) for index, factor in (*terms, *now[target])]
            add([(at(switch, slot), 1), *negative], constant - 1, np.inf)
        terms, constant = was("exit")
        add([*terms, *now["hold"]], -np.inf, 1 - constant)  # an exited job cannot hold
        if "exit" not in job.pauses:  # an exited job may stay exited, but no job exits
            add([*now["exit"], *((index, -factor) for index, factor in terms)], -np.inf, constant)
        if slot:
            add([(at("over", slot), 1), (at("over", slot - 1), -1)], 0, np.inf)
            add([(at("over", slot), 1), (at("over", slot - 1), -1), (at("last", slot - 1), -1)], -np.inf, 0)
            add([(at("over", slot), 1), (at("last", slot - 1), -1)], 0, np.inf)
        else:
            add([(at("over", 0), 1)], 0, 0)
    speeds = [
        (at(f"used{index}", slot), level.speed) for index, level in enumerate(job.levels) for slot in range(slots)
    ]
    add(speeds, job.work_hours, job.work_hours)
    whole, top = np.ones(size), np.ones(size)
    for index in range(count):
        whole[place[f"used{index}"] : place[f"used{index}"] + slots] = 0
    if "hold" not in job.pauses:
        top[place["hold"] : place["hold"] + slots] = 0
    answer = milp(
        cost, constraints=LinearConstraint(np.array(rows), low, high), integrality=whole, bounds=Bounds(0, top),
        options={"mip_rel_gap": 0.0},
    )  # fmt: skip
    if answer.x is None:
        raise RuntimeError(f"The solver found no solution for {job} in {slots} slots: {answer.message}")
    return float(answer.fun)
