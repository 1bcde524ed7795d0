"""Base class of the actuators that use zeusd."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from typing_extensions import override

from lightning_green.throttle.actuator import Actuator
from lightning_green.throttle.actuators.zeusd import Zeusd, zeusd_gpus


class ZeusdActuator(Actuator):
    """Base class of the actuators that set NVIDIA GPUs through zeusd, without root.

    A site can replace each operation of zeusd by commands of its own (``zeusd serve --gpu-command-overrides``). zeusd
    does not report which operations it can carry out, and a command that fails halfway is not rolled back.

    Args:
        gpu_ids: Physical indices of the GPUs; None for the GPUs of the job.
        socket: Path of zeusd's socket; None for ``ZEUSD_SOCK_PATH``, or ``/run/zeusd/zeusd.sock`` if it is not set.

    Attributes:
        groups: API groups of zeusd that the actuator requires.

    """

    groups: ClassVar[tuple[str, ...]] = ("gpu-control",)

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

    @classmethod
    @override
    def from_journal(cls, arguments: dict[str, Any]) -> Actuator:
        # The socket is that of this process: the requests carry its token.
        return cls(gpu_ids=arguments.get("gpu_ids"))  # type: ignore[call-arg]

    @override
    def find_obstacle(self, state: dict[str, Any]) -> str | None:
        return None  # `read_state` has asked zeusd, which has no other way to report a permission

    def _gpu_indices(self) -> list[str]:
        """Return the physical indices of the GPUs.

        Raises:
            ThrottleError: If zeusd cannot change GPU settings, or the GPUs cannot be found.

        """
        self.daemon.check(*self.groups)
        return [str(gpu) for gpu in zeusd_gpus(self.gpu_ids, self._names)]

    def _post(self, route: str, gpus: Sequence[str], **query: int) -> None:
        """Change a setting of GPUs and wait for its completion.

        Raises:
            ThrottleError: If that fails. A part of the GPUs may be changed.

        """
        self.daemon.call("POST", route, {"gpu_ids": ",".join(gpus), **query, "block": "true"})
