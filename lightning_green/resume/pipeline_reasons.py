"""Why the state of a data pipeline cannot be restored, in words for the user."""

from __future__ import annotations

from lightning_green.resume.pipeline_state import PipelineState, without_number

CHANGES_OFTEN = (
    "the training changes what its sampler or stream reads next, within an epoch; compute it from the epoch, or "
    "change it between epochs"
)

OWN_BATCHES = (
    "the training loader does not yield one batch for each that its sampler chooses, so they cannot be skipped; pass "
    "the loaders that it combines as a `CombinedLoader`, or an object that is no `DataLoader`"
)

READ_IN_A_THREAD = (
    "the training loader reads in a thread, ahead of the training by an unknown number of batches; use a `DataLoader` "
    "of PyTorch, with `num_workers` to read ahead"
)

SHARED_WITH_WORKERS = (
    "the training changes a value in memory that it shares with worker processes, which read ahead; change it between "
    "epochs, and set `num_workers=0` for pauses within an epoch"
)


def in_workers(found: str) -> str:
    """Return why a state that each worker process has for itself is not restored."""
    return (
        f"in worker processes, loading changes {found}, of which each worker has its own copy; draw from the global "
        "generators of `torch`, `numpy` or `random`, compute it from the index, or set `num_workers=0`"
    )


def why_lost(*states: PipelineState) -> str | None:
    """Return why the state of a pipeline cannot be saved; None if it can."""
    for state in states:
        for path, problem in state.update_lost().items():
            return (
                f"the data pipeline has changed `{without_number(path)}`, which {problem}; compute it from "
                "the index or the epoch, or keep it as ordinary Python data from the start"
            )
    return None
