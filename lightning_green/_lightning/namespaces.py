"""The two packages of Lightning: ``lightning.pytorch``, and ``pytorch_lightning`` with a copy of every class.

Lightning Green is written against ``lightning.pytorch``. A Trainer of ``pytorch_lightning`` calls the hooks of any
callback by name, but its objects are not instances of the classes of ``lightning.pytorch``. This module finds the copy
of a class in ``sys.modules`` and never imports ``pytorch_lightning``: before the script does, no object is of its
classes.
"""

from __future__ import annotations

import functools
import sys
from types import new_class
from typing import Any, TypeVar, overload

import lightning.pytorch as pl
from typing_extensions import Self, override

T = TypeVar("T")
U = TypeVar("U")
_PACKAGES = {"lightning.pytorch.": "pytorch_lightning.", "lightning.fabric.": "lightning_fabric."}


def _copy(kind: type[T]) -> type[T] | None:
    """Return the class of ``pytorch_lightning`` with the same name; None if its module is not imported."""
    for package, other in _PACKAGES.items():
        if kind.__module__.startswith(package):
            found: type[T] | None = getattr(
                sys.modules.get(other + kind.__module__.removeprefix(package)), kind.__name__, None
            )
            return found
    return None


@overload
def both(kind: type[T], other: type[U], /) -> tuple[type[T] | type[U], ...]: ...


@overload
def both(*kinds: type[T]) -> tuple[type[T], ...]: ...


def both(*kinds: type[Any]) -> tuple[type[Any], ...]:
    """Return classes of ``lightning.pytorch`` and their copies in ``pytorch_lightning``, for ``isinstance``.

    Args:
        kinds: The classes. Those of other packages have no copy.

    """
    if "pytorch_lightning" not in sys.modules:
        return kinds
    return (*kinds, *(copy for kind in kinds if (copy := _copy(kind)) is not None))


def same_package(owner: Any, kind: type[T]) -> type[T]:
    """Return a class of ``lightning.pytorch``, or its copy if a Trainer or a module is of ``pytorch_lightning``."""
    _, _, *copies = both(pl.Trainer, pl.LightningModule)
    return (_copy(kind) or kind) if isinstance(owner, tuple(copies)) else kind


def check_package(trainer: pl.Trainer) -> None:
    """Check that a Trainer of ``pytorch_lightning`` has the private attributes of ``lightning.pytorch``.

    Raises:
        RuntimeError: If the versions of the packages differ.

    """
    if isinstance(trainer, pl.Trainer) or not isinstance(trainer, both(pl.Trainer)):
        return
    version = getattr(sys.modules["pytorch_lightning"], "__version__", "unknown")
    if version != pl.__version__:
        raise RuntimeError(
            f"Lightning Green works with `pytorch_lightning` of the same version as `lightning`, got {version} and "
            f"{pl.__version__}. Write `import lightning.pytorch as pl` instead of `import pytorch_lightning as pl`, or "
            f"install the same version: pip install pytorch-lightning=={pl.__version__}"
        )


class OfBothPackages:
    """Base of plugins whose class a Trainer checks.

    An instance that is created after ``import pytorch_lightning`` is also an instance of the copy of its Lightning
    class. The methods of ``lightning.pytorch`` come first.
    """

    def __new__(cls, *_: Any, **__: Any) -> Self:
        instance: Self = super().__new__(_with_copy(cls))
        return instance

    @override
    def __reduce_ex__(self, protocol: Any) -> Any:
        # Pickle finds a class by its name, which is that of the declared class.
        reduced: Any = super().__reduce_ex__(max(2, protocol))
        _, (cls, *arguments), *state = reduced
        return _create, (vars(cls).get("_declared", cls), *arguments), *state


def _create(cls: Any, *arguments: Any) -> Any:
    return cls.__new__(cls, *arguments)


def _with_copy(cls: Any) -> Any:
    """Return a subclass that also derives from the copy of the most specific Lightning class; ``cls`` without one."""
    copy: Any = next((found for base in cls.__mro__ if (found := _copy(base)) is not None), None)
    return cls if copy is None or issubclass(cls, copy) else _combined(cls, copy)


@functools.cache
def _combined(cls: Any, copy: Any) -> Any:
    attributes = {name: getattr(cls, name) for name in ("__module__", "__qualname__", "__doc__")} | {"_declared": cls}
    return new_class(cls.__name__, (cls, copy), exec_body=lambda namespace: namespace.update(attributes))
