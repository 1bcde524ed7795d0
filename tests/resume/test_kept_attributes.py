from lightning_green.resume.kept_attributes import KeptAttributes


class Counter:
    by_class = 0

    def __init__(self, size=4):
        self.passes, self.size, self.items = 0, size, []


def changed(make, change):
    one = make()
    kept = KeptAttributes(one, None, [1])
    change(one)
    return kept.changed()


def count(one):
    one.passes, one.by_class, one.items = 3, 2, [1]


def test_changed_numbers_and_strings_are_restored():
    saved = changed(Counter, count)
    other = Counter()
    KeptAttributes(other, None, [1]).restore(saved)
    assert (other.passes, other.by_class, other.size, other.items) == (3, 2, 4, [])


def test_earlier_state_is_restored_over_a_later_one():
    one = Counter()
    kept = KeptAttributes(one)
    at_start = kept.changed()
    count(one)
    kept.restore(at_start)
    assert (one.passes, vars(one).get("by_class")) == (0, None)


def test_another_value_of_the_script_is_kept():
    saved = changed(Counter, lambda one: setattr(one, "size", 5))
    other = Counter(size=8)
    KeptAttributes(other).restore(saved)
    assert other.size == 8


def test_objects_of_libraries_are_ignored():
    class_of_library = type("Sampler", (), {"__module__": "torch.utils.data"})
    assert KeptAttributes(class_of_library()).changed() == []
