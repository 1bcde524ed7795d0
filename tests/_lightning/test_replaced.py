import copy
import pickle

import pytest

from lightning_green._lightning.replaced import call_all, replace_method


class Loop:
    def __init__(self):
        self.number = 1

    def run(self, value=0):
        return "original", self.number, value


def test_method_of_one_object_is_replaced_until_it_is_undone():
    loop, other = Loop(), Loop()
    undo = replace_method(loop, "run", lambda value=0: ("replaced", value))
    assert (loop.run(3), other.run(3)) == (("replaced", 3), ("original", 1, 3))
    undo()
    assert loop.run() == ("original", 1, 0)


def test_replacement_by_another_package_is_kept():
    loop = Loop()
    loop.run = lambda: "theirs"
    replace_method(loop, "run", lambda: "ours")()
    assert loop.run() == "theirs"


def test_all_functions_are_called_although_one_raises():
    called = []
    both = call_all(lambda: called.append("first"), lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        both()
    assert called == ["first"]


def test_copy_has_the_original_method():
    loop = Loop()
    replace_method(loop, "run", lambda: "replaced")
    for copied in (copy.deepcopy(loop), pickle.loads(pickle.dumps(loop))):
        copied.number = 2
        assert copied.run() == ("original", 2, 0)
    assert loop.run() == "replaced"
