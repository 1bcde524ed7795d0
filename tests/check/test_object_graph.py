import itertools
import random
import types
from collections import deque

import numpy as np
import pytest
import torch
from torch import nn

from lightning_green.check.object_graph import digest, object_graph


class Thing:
    def __init__(self, **attributes):
        self.__dict__.update(attributes)


def test_attributes_of_nested_objects_have_paths():
    inner = Thing(weight=0.5, names=["a"])
    graph = object_graph(module=Thing(inner=inner, table={"k": Thing(x=1)}))
    assert graph == {
        "module.inner.weight": "0.5",
        "module.inner.names[0]": '"a"',
        "module.table['k'].x": "1",
    }


def test_an_object_with_two_paths_and_a_cycle_are_visited_once():
    one = Thing(value=1)
    one.itself, other = one, Thing(one=one)
    assert object_graph(a=one, b=other) == {"a.value": "1"}


def test_modules_have_their_attributes_and_modes_without_weights():
    net = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.3))
    net[1].eval()
    graph = object_graph(net=net)
    assert graph["net.1.p"] == "0.3"
    assert (graph["net.training"], graph["net.1.training"]) == ("true", "false")
    assert not any("weight" in path for path in graph)


@pytest.mark.parametrize(
    "make",
    [
        lambda seed: random.Random(seed),
        lambda seed: np.random.default_rng(seed),
        lambda seed: np.random.RandomState(seed),
        lambda seed: torch.Generator().manual_seed(seed),
        lambda seed: np.arange(500) + seed,
        lambda seed: torch.arange(500) + seed,
        lambda seed: list(range(seed, seed + 1000)),
        lambda seed: deque([seed], 3),
        lambda seed: itertools.count(seed),
        lambda seed: {"a": [torch.tensor(seed)]},
        lambda seed: Thing(payload=Thing(x=torch.tensor([seed]))),
    ],
)
def test_digest_depends_on_the_content(make):
    assert digest(make(1)) == digest(make(1))
    assert digest(make(1)) != digest(make(2))


def test_digest_of_a_generator_changes_with_a_draw():
    for generator in (random.Random(1), np.random.default_rng(1), np.random.RandomState(1)):
        before = digest(generator)
        generator.random()
        assert digest(generator) != before


def test_functions_locks_and_huge_containers_do_not_stop_it():
    import threading

    thing = Thing(lock=threading.Lock(), call=print, rows=[Thing(x=i) for i in range(5000)], module=types)
    graph = object_graph(thing=thing)
    assert set(graph) == {"thing.lock", "thing.call", "thing.rows", "thing.module"}


@pytest.mark.parametrize("kind", ["Index", "Series", "DataFrame"])
def test_tables_of_pandas_are_equal_whatever_they_have_cached(kind):
    pandas = pytest.importorskip("pandas")
    table = getattr(pandas, kind)({"a": [1, 2], "b": [3, 4]} if kind == "DataFrame" else [1.5, 2.5])
    before = digest({"x": table})
    index = table if kind == "Index" else table.index
    assert index.is_unique  # cached
    assert digest({"x": table}) == before
    assert digest({"x": table + 1}) != before
