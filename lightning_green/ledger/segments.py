"""The work of a run, one interval after another."""

from __future__ import annotations

from typing import NamedTuple


class Segment(NamedTuple):
    """Work that a node did from ``start`` to ``end`` (seconds since the epoch), at full power or a throttle level."""

    start: float
    end: float
    joules: float
    power: float
    speed: float
    attempt: int = 1
    node: int = 0


def join_neighbors(segments: list[Segment]) -> list[Segment]:
    """Join pairs of neighbors of a node at the same throttle level, which halves the resolution in time."""
    found: list[Segment] = []
    open_pairs: dict[int, int] = {}  # position of the last segment of each node that may be joined
    for segment in segments:
        position = open_pairs.pop(segment.node, None)
        if position is not None:
            last = found[position]
            if last.end == segment.start and last[3:] == segment[3:]:
                found[position] = last._replace(end=segment.end, joules=last.joules + segment.joules)
                continue
        open_pairs[segment.node] = len(found)
        found.append(segment)
    return found
