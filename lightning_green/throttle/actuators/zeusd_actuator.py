"""What the actuators have in common that ask zeusd."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from typing_extensions import override

from lightning_green.throttle.actuator import Actuator
from lightning_green.throttle.actuators.zeusd import Zeusd, zeusd_gpus


class ZeusdActuator(Actuator):
    """Base of the actuators that have a zeusd set the job's NVIDIA cards, without root.

    Args:
        gpu_ids: Physical indices of the cards; None for the job's.
        socket: Path of zeusd's socket; None for ``ZEUSD_SOCK_PATH``, or ``/run/zeusd/zeusd.sock``.

    """

    def __init__(self, gpu_ids: Sequence[int] | None, socket: str | None) -> None:
        super().__init__()
        self.gpu_ids = None if gpu_ids is None else [int(gpu) for gpu in gpu_ids]
        self.daemon = Zeusd(socket)
        self._names: list[str] | None = None

    @override
    def bind_gpus(self, gpus: Sequence[str]) -> None:
        self._names = list(gpus)

    @override
    def arguments(self) -> dict[str, Any]:
        return {"gpu_ids": self.gpu_ids, "socket": self.daemon.path}

    def _cards(self) -> list[str]:
        """Return the cards' physical indices as zeusd takes them, if it lets us set anything.

        Raises:
            ThrottleError: If it does not, or the cards cannot be told.

        """
        self.daemon.check()
        return [str(gpu) for gpu in zeusd_gpus(self.gpu_ids, self._names)]

    def _post(self, route: str, cards: Sequence[str], **query: int) -> None:
        """Have zeusd set the cards, and wait until it has."""
        self.daemon.call("POST", route, {"gpu_ids": ",".join(cards), **query, "block": "true"})
