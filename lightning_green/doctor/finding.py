"""One finding about a machine, and all of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Level = Literal["ok", "limited", "no"]


@dataclass(frozen=True)
class Finding:
    """One property of a machine.

    Args:
        section: Group of the finding, such as ``"Meters"``.
        name: What was examined, such as ``"cpu"``.
        level: ``"ok"``, ``"limited"`` (works in part, or with estimates) or ``"no"``.
        text: One sentence.
        remedy: A command or an instruction that improves it; None if it is ``"ok"`` or nothing improves it.
        is_required: Whether energy or carbon intensity is unavailable without it.

    """

    section: str
    name: str
    level: Level
    text: str
    remedy: str | None = None
    is_required: bool = False


@dataclass(frozen=True)
class Diagnosis:
    """All findings about a machine.

    Args:
        host: Name of the machine.
        findings: The findings, in the order of their sections.

    """

    host: str
    findings: tuple[Finding, ...]

    @property
    def missing(self) -> tuple[Finding, ...]:
        """The required findings that are not available."""
        return tuple(one for one in self.findings if one.is_required and one.level == "no")

    @property
    def works(self) -> bool:
        """Whether energy is measured or modeled, carbon intensity is known, and the run directory can be written."""
        return not self.missing

    def to_json(self) -> dict[str, Any]:
        """Return the diagnosis as a JSON object."""
        return {"host": self.host, "works": self.works, "findings": [asdict(one) for one in self.findings]}
