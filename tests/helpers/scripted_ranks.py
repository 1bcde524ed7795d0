"""The ranks of a training as one of them sees them, without other processes."""

from lightning_green.strategies.control_group import ControlGroup


class ScriptedRanks(ControlGroup):
    """Records what is sent and receives what is given.

    Args:
        rank: Rank of this process.
        size: Number of ranks.
        received: Commands of rank 0 with their numbers, for another rank.
        other: The largest number of the other ranks.

    """

    def __init__(self, rank=0, size=2, received=(), other=0):
        super().__init__(rank, 1)
        self.size, self.other, self.elsewhere = size, other, 0
        self.sent, self.asked, self._received = [], [], list(received)

    def send(self, command, *numbers):
        self.sent.append((command, *numbers))

    def receive(self):
        command, *numbers = self._received.pop(0)
        return command, [*map(float, numbers), 0.0, 0.0, 0.0][:3]

    def all_reduce_max(self, number):
        return max(number, self.other)

    def all_reduce_max_of_batch(self, number, elsewhere):
        self.asked.append(number)
        return [max(number, self.other), max(elsewhere, self.elsewhere)]
