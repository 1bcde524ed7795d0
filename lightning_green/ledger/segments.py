"""The work of a run, one interval after another."""

from __future__ import annotations

from typing import NamedTuple

from lightning_green.ledger.recorded_intensity import Place


class Segment(NamedTuple):
    """Work that a node did from ``start`` to ``end`` (seconds since the epoch), at full power or a throttle level.

    Args:
        start: Start.
        end: End; without the time that the machine slept.
        joules: Energy in J, after PUE.
        power: Power of the throttle level as a fraction of full power.
        speed: Speed of the throttle level as a fraction of full speed.
        attempt: Start of the run.
        node: Number of the node.
        place: What its intensity is true for; None if that is unknown, and on nodes that read no grid.
        delay: Seconds by which waiting and throttling have delayed it.

    """

    start: float
    end: float
    joules: float
    power: float
    speed: float
    attempt: int = 1
    node: int = 0
    place: Place | None = None
    delay: float = 0.0


def join_neighbors(segments: list[Segment]) -> list[Segment]:
    """Join pairs of neighbors of a node at the same throttle level, which halves the resolution in time."""
    found: list[Segment] = []
    open_pairs: dict[int, int] = {}  # position of the last segment of each node that may be joined
    for segment in segments:
        position = open_pairs.pop(segment.node, None)
        if position is not None:
            last = found[position]
            if last.end == segment.start and last[3:8] == segment[3:8]:
                found[position] = last._replace(end=segment.end, joules=last.joules + segment.joules)
                continue
        open_pairs[segment.node] = len(found)
        found.append(segment)
    return found
