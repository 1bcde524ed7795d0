"""Bytes that the ranks send to each other, and an estimate of their energy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist

JOULES_PER_BYTE = 3.6e-6
"""Energy of one byte that a rank sends: 0.001 kWh/GB, the coefficient of Cloud Carbon Footprint for data between data
centers (https://www.cloudcarbonfootprint.org/docs/methodology/#networking). Within a data center it is lower."""
LARGEST_MESSAGE = 250 * 2**20
"""Bytes of tensors that are copied into one message."""
GLOO_HEADERS = 144
"""Bytes that gloo adds to each part of a message, measured at the sockets of two to four processes."""
_PARTS = 2  # into which gloo divides what one rank sends to the next in each round of an all-reduce


class Traffic:
    """Sums tensors of the ranks, and counts the bytes that a rank sends for it on average.

    In a ring all-reduce, each of n ranks sends a message of B bytes in n parts, first to add them up and then to
    distribute the sums: 2 (n - 1) / n B bytes (Patarasuk and Yuan, J. Parallel Distrib. Comput. 69, 2009). A tree of
    ranks sends the same number in total. In a broadcast, each rank but one receives the message: (n - 1) / n B bytes.
    The headers of gloo are included, and those of TCP and of NCCL are not.

    Args:
        size: Number of ranks.
        backend: Backend of the process group.

    Attributes:
        sent: Bytes that one rank has sent, on average over the ranks.

    """

    def __init__(self, size: int, backend: str = "") -> None:
        self.size, self.sent = size, 0.0
        self._headers = GLOO_HEADERS if backend == "gloo" else 0

    def count_all_reduce(self, payload: float) -> None:
        """Count an all-reduce of a message of ``payload`` bytes."""
        self.sent += 2 * (self.size - 1) * (payload / self.size + _PARTS * self._headers)

    def count_broadcast(self, payload: float) -> None:
        """Count a broadcast of a message of ``payload`` bytes."""
        self.sent += (self.size - 1) / self.size * (payload + self._headers)

    def begin_sum(self, tensor: torch.Tensor) -> torch.futures.Future[list[torch.Tensor]]:
        """Begin to replace a tensor by its sum over the ranks."""
        self.count_all_reduce(bytes_of([tensor]))
        future: torch.futures.Future[list[torch.Tensor]] = dist.all_reduce(tensor, async_op=True).get_future()
        return future

    def sum(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace tensors by their sums over the ranks, in one all-reduce for each dtype up to 250 MiB."""
        for group in _messages(tensors):
            flat = torch.cat([one.reshape(-1) for one in group])
            self.count_all_reduce(bytes_of([flat]))
            dist.all_reduce(flat)
            for one, part in zip(group, torch.split(flat, [one.numel() for one in group]), strict=True):
                one.copy_(part.view_as(one))

    def average(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace tensors by their means over the ranks, like ``sum``."""
        wide = [one.float() if one.dtype in (torch.float16, torch.bfloat16) else one for one in tensors]
        for one in wide:
            one.div_(self.size)
        self.sum(wide)
        for one, mean in zip(tensors, wide, strict=True):
            if mean is not one:
                one.copy_(mean)


def bytes_of(tensors: Iterable[torch.Tensor]) -> int:
    """Return the number of bytes of tensors; those of the values of sparse ones."""
    return sum(
        bytes_of([one.coalesce().values()]) if one.is_sparse else one.numel() * one.element_size() for one in tensors
    )


def _messages(tensors: Sequence[torch.Tensor]) -> list[list[torch.Tensor]]:
    """Return the tensors in groups that are sent together."""
    found: list[list[torch.Tensor]] = []
    last: dict[torch.dtype, list[torch.Tensor]] = {}
    size: dict[torch.dtype, int] = {}
    for one in tensors:
        group = last.get(one.dtype)
        if group is None or size[one.dtype] + bytes_of([one]) > LARGEST_MESSAGE:
            group, size[one.dtype] = [], 0
            last[one.dtype] = group
            found.append(group)
        group.append(one)
        size[one.dtype] += bytes_of([one])
    return found
