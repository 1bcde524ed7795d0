"""Drawing the choices of a script at random."""

from __future__ import annotations

import random
from dataclasses import replace

from random_scripts.choices import (
    AWKWARD,
    BATCH_SECONDS,
    ONE_MODULE,
    OPTIMIZERS,
    STRUCTURES,
    Driver,
    Fault,
    Fit,
    Scenario,
)


def scenario(seed: int, index: int) -> Scenario:
    """Return the random choices of one script.

    Args:
        seed: Seed of the benchmark.
        index: Number of the script.

    """
    draw = random.Random(f"{seed}-{index}")
    structure = draw.choices(list(STRUCTURES), list(STRUCTURES.values()))[0]
    driver = _driver(draw) if structure == "processes" else None
    seeded = "" if structure == "threads" else draw.choice(["once", "once", "each", "", ""])
    if seeded == "each" and (structure == "twice" or driver is not None):
        seeded = "once"
    kind = draw.choice(["none", "numbers", "numbers", "awkward"])
    awkward = tuple(sorted(draw.sample(sorted(AWKWARD), draw.randint(1, 4))))
    # Lightning's learning rate finder cannot load the checkpoint of a module with awkward hyperparameters
    tuned = structure in ("sequence", "loop") and kind != "awkward" and draw.random() < 0.3
    made = Scenario(
        seed=seed,
        index=index,
        structure=structure,
        seeded=seeded,
        hparams={"none": (), "numbers": ("numbers",)}.get(kind, awkward),
        shuffle=draw.choice(["global", "global", "generator", ""] if seeded else ["generator", ""]),
        dropout=bool(seeded) and draw.random() < 0.6,
        optimizer=draw.choice(list(OPTIMIZERS)),
        fits=_fits(draw, structure, driver, tuned),
        count={"loop": draw.randint(2, 4), "threads": draw.choice([2, 2, 3]), "loop_finetune": 2}.get(structure, 1),
        varies=draw.choice(["part", "part", "lr", "start", "width"]),
        alternates=draw.random() < 0.5,
        finetune=draw.choice(["same_module", "from_best"]),
        shares_loader=draw.random() < 0.5,
        pool=draw.random() < 0.5,
        driver=driver,
    )
    made = replace(made, faults=_faults(draw, made))
    if not made.faults and all(fit.green == "exact" for fit in made.fits):  # let something happen
        made = replace(made, fits=tuple(replace(fit, green="scheduler+exact") for fit in made.fits))
    return replace(made, dirty=_dirty(draw, made))


def _driver(draw: random.Random) -> Driver:
    by = draw.choice(["env", "env", "seed", "lr", "cwd", "nothing"])
    return Driver(
        language=draw.choice(["bash", "bash", "python"]),
        # identical trainings at the same time in one directory would overwrite each other's checkpoints
        parallel=by != "nothing" and draw.random() < 0.4,
        strict=draw.random() < 0.6,
        distinguished_by=by,
        values=(("0.05", "0.02", "0.1") if by == "lr" else ("1", "2", "3"))[: draw.choice([2, 2, 2, 3])],
    )


def _fits(draw: random.Random, structure: str, driver: Driver | None, tuned: bool) -> tuple[Fit, ...]:
    number = {"sequence": draw.choice([1, 1, 2, 2, 3, 3, 4]), "loop": 1, "threads": 1}.get(structure, 2)
    if driver is not None and (len(driver.values) > 2 or draw.random() < 0.7):
        number = 1
    fits = [
        Fit(
            name=name,
            epochs=draw.choice([1, 2, 2, 2, 3]),
            lr=draw.choice([0.05, 0.02, 0.1]),
            part=draw.choice([0, 0, 1, 2]),
            start=draw.choice([0, 0, 1]),
            width=draw.choice([8, 8, 6]),
            green=draw.choice(["scheduler", "scheduler", "exact", "scheduler+exact"]),
            meter=draw.choice([300, 300, 100]),
            deadline=draw.choice(["36h", "72h", "5d"]),
            every=draw.choice(["timedelta(milliseconds=100)", '"1s"', '"1h"']),
            monitor=draw.random() < 0.6,
            early_stopping=draw.random() < 0.3,
            csv=draw.random() < 0.3,
            after=draw.choice(["", "", "", "validate", "test"]),
            tuner=tuned and draw.random() < 0.6,
        )
        for name in "abcd"[:number]
    ]
    first, same = fits[0], draw.random() < 0.3
    if structure == "sequence" and same:  # only their order distinguishes the fits
        names = ("epochs", "lr", "part", "start", "width")
        fits = [replace(fit, **{name: getattr(first, name) for name in names}) for fit in fits]
    if structure in ONE_MODULE:
        fits = [replace(fit, width=8, part=first.part, start=first.start) for fit in fits]
    if structure == "twice":  # one Trainer, so its settings are those of the first fit
        fits = [replace(first, name=fit.name, epochs=fit.epochs, after=fit.after) for fit in fits]
        if fits[0].after == "test":  # the second fit deletes the best checkpoint of the first
            fits[0] = replace(fits[0], after="validate")
    if structure == "loop_finetune":  # four fits, which should be short
        fits = [replace(fit, epochs=1) for fit in fits]
    return tuple(fits)


def _faults(draw: random.Random, made: Scenario) -> tuple[Fault, ...]:
    # Nothing can notice that a process died between two fits when its driver ignores exit codes. An exception in a
    # plain thread is one that the script ignores: without a supervisor it ends with 0 as well.
    ignored = made.driver is not None and not made.driver.strict
    threads = made.structure == "threads" and not made.pool
    faults, labels = [], made.fit_labels()
    for _ in range(draw.choices([0, 1, 2], [25, 50, 25])[0]):
        prefix, (label, first, last) = draw.choice(made.processes()).prefix, draw.choice(labels)
        if draw.random() < 0.75:
            kind = draw.choice(["sigkill", "sigkill", "exception", "exception", "sigterm", "supervisor", "everything"])
            kind = "sigkill" if threads and kind == "exception" else kind
            faults.append(Fault(kind, "batch", prefix + label, draw.randint(first, last)))
            continue
        kind = draw.choice(["supervisor", "everything"] if ignored else ["sigkill", "exception"])
        kind = "sigkill" if threads else kind
        place = draw.choice(["before", "after", "end"])
        faults.append(Fault(kind, place, prefix + (labels[-1][0] if place == "end" else label)))
    return tuple(faults)


def _dirty(draw: random.Random, made: Scenario) -> tuple[tuple[int, int], ...]:
    """Return the dirty hours: spells of one or three hours, with as long clean ones between, and few planned exits."""
    several = made.driver is not None or made.structure == "threads"
    number = draw.choice([0, 1, 1] if several else [0, 1, 1, 1, 2, 3])
    if not made.faults:
        number = max(1, number)
    # the scheduler decides once it knows the time of a step, so a spell begins within a fit and not at its start
    hours = [(last - first + 1) * BATCH_SECONDS // 3600 for _, first, last in made.fit_labels()]
    chosen = draw.choices(range(len(hours)), hours)[0]
    before = 0 if made.structure == "threads" else sum(hours[:chosen])
    begin, length = before + draw.randint(1, max(1, hours[chosen] - 2)), draw.choice([1, 3])
    return tuple((begin + 2 * length * n, begin + 2 * length * n + length) for n in range(number))
