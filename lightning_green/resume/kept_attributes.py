"""Numbers and strings that samplers and streams keep from one pass to the next, such as a count of their passes."""

from __future__ import annotations

from typing import Any

from lightning_green.resume.attribute_values import SCALARS
from lightning_green.resume.script_attributes import is_script_class


class KeptAttributes:
    """The numbers and strings in attributes of objects of the script.

    Args:
        owners: The objects; those of libraries are ignored.

    """

    def __init__(self, *owners: Any) -> None:
        self._owners = [one for one in owners if hasattr(one, "__dict__") and is_script_class(type(one))]
        self._created = self._read()

    def changed(self) -> list[dict[str, Any]]:
        """Return for each object the attributes that differ from those at its creation, with both values."""
        return [
            {name: [old.get(name), value] for name, value in now.items() if name not in old or old[name] != value}
            for old, now in zip(self._created, self._read(), strict=True)
        ]

    def restore(self, saved: list[dict[str, Any]]) -> None:
        """Set the result of ``changed``; an attribute that the script now creates with another value keeps it."""
        for owner, created, now, attributes in zip(self._owners, self._created, self._read(), saved, strict=False):
            for name in now.keys() - created.keys():
                del vars(owner)[name]
            values = {name: value for name, (old, value) in attributes.items() if created.get(name) == old}
            vars(owner).update({**created, **values})

    def _read(self) -> list[dict[str, Any]]:
        return [{name: one for name, one in vars(owner).items() if isinstance(one, SCALARS)} for owner in self._owners]
