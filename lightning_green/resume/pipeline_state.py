"""The state that the objects of a data pipeline keep: random generators, counts, caches, indices, weights, open files.

It is found by walking the objects. What is ordinary Python data is saved and restored; what is not, and has changed, is
reported.
"""

from __future__ import annotations

import io
import time
import types
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch

from lightning_green.resume.attribute_values import (
    SCALARS,
    Identity,
    Reference,
    as_text,
    assign_same,
    fingerprint,
    identity,
    number_of,
    same_elements,
)
from lightning_green.resume.object_generators import Generator, copy_generator, is_iterator, set_generator_state
from lightning_green.resume.object_walk import CONTAINERS, GENERATORS, Namespace, has_class, is_script_class, walk
from lightning_green.resume.pipeline_values import FilePosition, copy_value, restored_value
from lightning_green.resume.plain_data import NotPlainError
from lightning_green.resume.plain_forms import form_of

_ABSENT = ""
_NONE = object()
_MAX_NAMED, _MAX_ELEMENTS = 20, 1_000_000
_SAMPLES = 32
_MARKS_PER_WALK = 64

_CODE = (types.FunctionType, types.MethodType, types.ModuleType, type)
Key = tuple[str, str]


class Created:
    """The values that attributes had when a pipeline was found first, also by another loader of the same objects."""

    def __init__(self) -> None:
        self.values: dict[tuple[int, str], tuple[int | None, str]] = {}
        self.identities: dict[tuple[int, str], Identity] = {}
        self._owners: dict[int, Any] = {}

    def add(self, values: list[tuple[Namespace, str, Any]]) -> dict[Key, tuple[int | None, str]]:
        """Return the marks and the texts of attributes at their first visit."""
        known = set(self._owners)
        self._owners.update((id(space.owner), space.owner) for space, _, _ in values)  # keeps them alive
        for space, name, value in values:
            key = (id(space.owner), name)
            if key not in self.values:
                is_new = key[0] in known
                self.values[key] = (None, _ABSENT) if is_new else (_mark(value), as_text(value))
                self.identities[key] = identity(value)
        return {(space.path, name): self.values[id(space.owner), name] for space, name, _ in values}


class PipelineState:
    """The state of the objects of a pipeline.

    Args:
        owners: Datasets, samplers, functions.
        with_datasets: Whether to enter datasets, to which samplers refer.
        without: More objects that are not entered.
        created: The values at the creation of the pipeline; shared by the pipelines of a fit.
        keeps_contents: Whether to keep what containers contain, for `first_change`.

    """

    def __init__(
        self,
        *owners: Any,
        with_datasets: bool = True,
        without: Sequence[Any] = (),
        created: Created | None = None,
        keeps_contents: bool = False,
    ) -> None:
        self._owners, self._created = owners, created or Created()
        self._with_datasets, self._without = with_datasets, without
        self._changed: set[Key] = set()
        self._originals: dict[Key, Any] = {}  # of the attributes that have been restored, as the script creates them
        kept = (one for _, one, _ in self._walk() if isinstance(one, GENERATORS) or is_iterator(one))
        self._known = {id(one): Reference(one) for one in kept}
        self._contents: dict[Key, Any] = {}
        self._spaces_of_mark: list[Namespace] = []
        self._generators_of_mark: list[Generator] = []
        self._marks = 0
        values = list(self._values())
        self._at_creation = self._created.add(values)
        for space, name, value in values:
            if keeps_contents and type(value) in (dict, list) and len(value) <= _MAX_ELEMENTS:
                self._contents[space.path, name] = value.copy()
        self._generators_at_creation = {path: fingerprint(one) for path, one in self.generators().items()}
        self.seconds_per_mark = 0.0
        self.lost: dict[str, str] = {}
        self._mark_of_lost: int | None = None
        self.changes_shared_memory = False

    def generators(self) -> dict[str, Generator]:
        """Return the random generators by their path."""
        return {path: one for path, one, _ in self._walk() if isinstance(one, GENERATORS)}

    def mark(self) -> int:
        """Return a number that changes, nearly always, if the state does.

        It is called at each read, and therefore walks the objects again at some calls only.
        """
        if self._marks % _MARKS_PER_WALK == 0:
            walked = list(self._walk())
            self._spaces_of_mark = [space for _, _, spaces in walked for space in spaces]
            self._generators_of_mark = [one for _, one, _ in walked if isinstance(one, GENERATORS)]
        self._marks += 1
        began = time.thread_time()
        values = hash(tuple((name, _mark(value)) for _, name, value in self._values_in(self._spaces_of_mark)))
        mark = hash((values, *map(fingerprint, self._generators_of_mark)))
        self.seconds_per_mark = time.thread_time() - began
        return mark

    def capture(self, shared: bool = True) -> dict[str, Any]:
        """Return a copy of the state; `lost` is set to the attributes that have changed and cannot be saved.

        Args:
            shared: Whether to include what worker processes share with this process.

        """
        self._marks = 0
        found = self.generators()
        paths = {id(one): path for path, one in found.items()}
        values: dict[str, dict[str, Any]] = {}
        lost, covered = dict[str, str](), {id(one) for one in found.values() if self._is_known(one)}
        for space, name, value in self._values():
            key = (space.path, name)
            mark, text = self._at_creation.get(key, (None, _ABSENT))
            if (key not in self._changed and _mark(value) == mark) or (_is_shared(space, value) and not shared):
                continue
            self._changed.add(key)
            self.changes_shared_memory = self.changes_shared_memory or _is_shared(space, value)
            is_new = mark is None or text == "None"
            try:
                if is_new and isinstance(value, io.IOBase):
                    raise NotPlainError("", "has been opened since")
                content = copy_value(value, paths, covered)
            except Exception:  # noqa: BLE001 - an object of the script may raise anything when it is read
                if space.is_script and self._is_state(value, is_new):
                    lost[f"{space.path}.{name}"] = "cannot be saved"
                continue
            item = {"value": content, "created": text, "same": same_elements(value, self._identity(space, name))}
            values.setdefault(space.path, {})[name] = item
        for path, one, _ in self._walk():
            if isinstance(one, GENERATORS) and id(one) not in covered:
                lost[path] = f"is a `{type(one).__name__}` that did not exist at the start"
        self.lost, self._mark_of_lost = lost, self.mark()
        return {"generators": {path: copy_generator(one) for path, one in found.items()}, "values": values}

    def update_lost(self) -> dict[str, str]:
        """Return the attributes that have changed and cannot be saved; the state is copied only if it has changed."""
        if self.mark() != self._mark_of_lost:
            self.capture()
        return self.lost

    def first_change(self, fills: bool) -> str:
        """Return the path of something that has changed since the creation, or an empty string.

        Args:
            fills: Whether to ignore caches that are only filled, because no random number was drawn for them.

        """
        for path, one in self.generators().items():
            if not self._is_known(one) or fingerprint(one) != self._generators_at_creation.get(path):
                return f"`{without_number(path)}`, a random generator"
        for space, name, value in self._values():
            key = (space.path, name)
            mark, text = self._at_creation.get(key, (None, _ABSENT))
            if _mark(value) == mark or _is_shared(space, value):
                continue
            if fills and _is_filled(value, self._contents.get(key)):
                continue
            if _is_data(value) or self._is_state(value, mark is None or text == "None"):
                return f"`{without_number(f'{space.path}.{name}')}`"
        return ""

    def _is_state(self, value: Any, is_new: bool) -> bool:
        """Return whether a changed value that cannot be saved may decide what is read next.

        A handle that is opened at first use does not. The attributes of objects of the script are saved one by one.
        """
        if isinstance(value, (io.IOBase, *CONTAINERS)) or is_iterator(value) or is_script_class(type(value)):
            return True
        return not is_new and not hasattr(value, "__dict__")

    def restore(self, saved: dict[str, Any], shared: bool = True) -> None:
        """Set the result of ``capture``; an attribute that the script now creates with another value keeps it.

        Args:
            saved: The result of ``capture``.
            shared: Whether it includes what worker processes share with this process.

        """
        self._marks = 0
        found, spaces = self.generators(), self._spaces()
        new: dict[str, Any] = {}
        for path, state in saved["generators"].items():
            if path in found:
                set_generator_state(found[path], state)
            else:
                new[path] = copy_generator(state)
        for path, attributes in saved["values"].items():
            space = spaces.get(path)
            for name, item in attributes.items() if space is not None else ():
                created = self._at_creation.get((path, name), (None, _ABSENT))[1]
                if item["created"] != created and _ABSENT not in (created, item["created"]):
                    continue
                assert space is not None
                self._changed.add((path, name))
                self._keep_original(space, name)
                self._set(space, name, restored_value(item["value"], {**new, **found}), item["same"])
        for (path, name), original in self._originals.items():
            if path in spaces and name not in saved["values"].get(path, {}):
                if not shared and _is_shared(spaces[path], spaces[path].values.get(name)):
                    continue
                if original is _NONE:
                    spaces[path].values.pop(name, None)
                else:
                    self._set(spaces[path], name, restored_value(original, found))

    def _keep_original(self, space: Namespace, name: str) -> None:
        if (space.path, name) in self._originals:
            return
        self._originals[space.path, name] = _NONE
        if name in space.values:
            paths = {id(one): path for path, one in self.generators().items()}
            with suppress(Exception):  # an object of the script may raise anything when it is read
                self._originals[space.path, name] = copy_value(space.values[name], paths, set())

    def _identity(self, space: Namespace, name: str) -> Identity | None:
        return self._created.identities.get((id(space.owner), name))

    def _set(self, space: Namespace, name: str, value: Any, same: Sequence[int] | None = ()) -> None:
        current = space.values.get(name)
        if isinstance(value, FilePosition):
            if isinstance(current, io.IOBase):
                current.seek(value.at)
        elif value is not current:
            space.values[name] = assign_same(current, value, same, self._identity(space, name))

    def restore_generators(self, saved: dict[str, Any]) -> None:
        """Set the random generators only."""
        for path, generator in self.generators().items():
            if path in saved["generators"]:
                set_generator_state(generator, saved["generators"][path])

    def iterators(self) -> list[str]:
        """Return the paths of iterators of Python, which start again in another process."""
        return [path for path, one, _ in self._walk() if is_iterator(one)]

    def _is_known(self, value: Any) -> bool:
        """Return whether a value is a generator or an iterator that existed at the creation."""
        reference = self._known.get(id(value))
        return reference is not None and reference.refers_to(value)

    def _walk(self) -> Iterator[tuple[str, Any, list[Namespace]]]:
        return walk(*self._owners, with_datasets=self._with_datasets, without=self._without)

    def _spaces(self) -> dict[str, Namespace]:
        return {space.path: space for _, _, spaces in self._walk() for space in spaces}

    def _values(self) -> Iterator[tuple[Namespace, str, Any]]:
        for _, _, spaces in self._walk():
            yield from self._values_in(spaces)

    def _values_in(self, spaces: list[Namespace]) -> Iterator[tuple[Namespace, str, Any]]:
        for space in spaces:
            for name, value in list(space.values.items()):
                if not self._is_known(value) and has_class(value) and not isinstance(value, _CODE):
                    yield space, name, value


def _mark(value: Any) -> int:
    """Return a number that changes, nearly always, if the value does."""
    try:
        return _mark_of_content(value)
    except Exception:  # noqa: BLE001 - an object of the script may raise anything when it is read
        return number_of(value)


def _mark_of_content(value: Any) -> int:
    if isinstance(value, io.IOBase):
        with suppress(OSError, ValueError):
            return hash(("file", number_of(value), value.tell()))
        return number_of(value)
    if isinstance(value, np.ndarray) and not value.flags.writeable:
        return number_of(value)  # it may be as large as a disk
    if isinstance(value, GENERATORS):
        return number_of(value)
    if type(value) in (list, tuple, dict) and len(value) <= _MAX_NAMED:  # the states of generators are saved by path
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return hash((type(value), tuple((key, _mark(item)) for key, item in items)))
    if isinstance(value, torch.Tensor) and value.device.type == "cpu" and value.layout == torch.strided:
        flat = value.detach().reshape(-1) if value.is_contiguous() else value.detach()[:0]
        sample = flat[:: max(1, flat.numel() // _SAMPLES)]  # a version does not count what an array or a worker writes
        return hash((fingerprint(value), sample.tolist().__repr__()))
    return fingerprint(value)


def _is_filled(value: Any, before: Any) -> bool:
    """Return whether a container has lost none of its elements; elements that were None may have been set."""
    if type(value) is not type(before) or len(value) < len(before):
        return False
    if isinstance(value, dict):
        return all(key in value and value[key] is one for key, one in before.items())
    return len(value) == len(before) and all(old is None or old is new for old, new in zip(before, value, strict=True))


def _is_data(value: Any) -> bool:
    """Return whether a value is ordinary data, rather than a handle of a library."""
    return isinstance(value, (*SCALARS, torch.Tensor, *CONTAINERS)) or form_of(value) is not None


def without_number(path: str) -> str:
    """Return a path without the number of the object at which it begins."""
    return path.partition(".")[2] if path[:1].isdigit() else path


def _is_shared(space: Namespace, value: Any) -> bool:
    return space.is_shared or (isinstance(value, torch.Tensor) and bool(value.is_shared()))  # type: ignore[no-untyped-call]
