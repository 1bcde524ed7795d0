"""Several trainings that are alive in one process and take turns, so that all of them see the same machine."""

from __future__ import annotations

import threading


class Turns:
    """Hands the turn from one training to the next, in an order that is reversed every round.

    Args:
        trainings: How many there are; each runs in a thread of its own.
        rounds: How many turns each of them gets.

    """

    def __init__(self, trainings: int, rounds: int) -> None:
        forth = list(range(trainings))
        self._order = [number for turn in range(rounds) for number in (forth if turn % 2 == 0 else forth[::-1])]
        self._at, self.ended = 0, False
        self._mine = [threading.Semaphore(0) for _ in forth]
        self._mine[self._order[0]].release()

    def wait(self, number: int) -> None:
        """Wait for the turn of a training."""
        self._mine[number].acquire()

    def pass_on(self, number: int) -> None:
        """End the turn of a training, and return when its next one begins, or everyone runs to the end."""
        self._at += 1
        if self._at == len(self._order):
            self.end()
        elif (following := self._order[self._at]) != number:
            self._mine[following].release()
            self.wait(number)

    def end(self) -> None:
        """Let everyone run to the end."""
        self.ended = True
        for semaphore in self._mine:
            semaphore.release()
