"""Classes of a script whose objects may be in a training state, and saving and loading a state."""

import collections
import dataclasses
import enum
import threading

import torch

from lightning_green.resume.plain_data import from_plain, to_plain


class Color(enum.Enum):
    RED = 1
    BLUE = "b"


class Level(enum.IntEnum):
    LOW = 1


class Flags(enum.Flag):
    A = 1
    B = 2


@dataclasses.dataclass
class Config:
    width: int = 3
    folder: object = None


@dataclasses.dataclass(frozen=True)
class Frozen:
    color: Color = Color.RED


@dataclasses.dataclass
class Slotted:
    __slots__ = ("x",)
    x: int


class Settings(dict):
    pass


class Ordered(collections.OrderedDict):
    pass


@dataclasses.dataclass
class Output(collections.OrderedDict):
    """As the outputs of Hugging Face: its fields are also its items."""

    loss: float = 0.0

    def __post_init__(self):
        self["loss"] = self.loss


class Factory(collections.defaultdict):
    pass


@dataclasses.dataclass
class OfThread(threading.local):
    """As the context of a lock: another base class defines how its objects are created."""

    count: int = 0


Pair = collections.namedtuple("Pair", "one other")


def save_and_load(value, path):
    """Save and load a value the way a checkpoint is saved and loaded."""
    torch.save(to_plain({"state": value}), path)
    return from_plain(torch.load(path, weights_only=True))["state"]
