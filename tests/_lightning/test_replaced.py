import copy
import pickle

from lightning_green._lightning.replaced import replace_method, undo_all


class Loop:
    def __init__(self):
        self.number = 1

    def run(self, value=0):
        return "original", self.number, value


def test_method_of_one_object_is_replaced_until_it_is_undone():
    loop, other = Loop(), Loop()
    undo = replace_method(loop, "run", lambda value=0: ("replaced", value))
    assert (loop.run(3), other.run(3)) == (("replaced", 3), ("original", 1, 3))
    undo_all(undo, undo)()
    assert loop.run() == ("original", 1, 0)


def test_copy_has_the_original_method():
    loop = Loop()
    replace_method(loop, "run", lambda: "replaced")
    for copied in (copy.deepcopy(loop), pickle.loads(pickle.dumps(loop))):
        copied.number = 2
        assert copied.run() == ("original", 2, 0)
    assert loop.run() == "replaced"
