"""Built-in entries and those of installed packages."""

import sys
import warnings

import pytest

from lightning_green.utilities.registry import Registry

GROUP = "lightning_green.test_registry"


@pytest.fixture
def install(tmp_path, monkeypatch):
    """A function that installs a package: its name and the entry points of the group."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))

    def make(package, *lines, group=GROUP, code=""):
        information = folder / f"{package}-1.0.dist-info"
        information.mkdir()
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (information / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines]) + "\n")
        (folder / f"{package}.py").write_text(code)
        monkeypatch.delitem(sys.modules, package, raising=False)

    return make


def registry():
    return Registry(GROUP, {"counter": "collections:Counter", "missing": "no_such_module:Thing"})


def test_builtin_entry_is_imported_at_lookup():
    found = registry()
    assert found["counter"].__name__ == "Counter"
    assert sorted(found) == ["counter", "missing"]
    assert len(found) == 2
    assert "counter" in found
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        found["missing"]


def test_check_for_a_name_imports_nothing():
    assert "missing" in registry()


def test_class_that_is_not_a_subclass_is_refused():
    assert registry().load_class("counter", dict).__name__ == "Counter"
    with pytest.raises(TypeError, match=rf"{GROUP}: 'counter' should be a subclass of builtins.list, got <class 'coll"):
        registry().load_class("counter", list)


def test_unknown_name_raises_a_key_error():
    with pytest.raises(KeyError):
        registry()["unknown"]
    assert "unknown" not in registry()
    assert registry().get("unknown") is None


def test_entry_point_of_a_package_is_loaded_at_lookup(install):
    install("pkg_one", "meter = pkg_one:Meter", "broken = pkg_one:Nothing", code="class Meter: pass")
    install("pkg_two", "other = pkg_two:Other", group="another.group")
    found = registry()
    assert sorted(found) == ["broken", "counter", "meter", "missing"]
    assert len(found) == 4
    assert "pkg_one" not in sys.modules
    assert found["meter"].__name__ == "Meter"
    with pytest.raises(AttributeError, match="Nothing"):
        found["broken"]


def test_entry_point_cannot_replace_a_builtin_name(install):
    install("pkg_one", "counter = pkg_one:Counter", "meter = pkg_one:Meter", code="class Meter: pass")
    found = registry()
    with pytest.warns(UserWarning, match=rf"The entry point 'counter' of {GROUP} \(pkg_one:Counter\) is ignored: the"):
        assert sorted(found) == ["counter", "meter", "missing"]
    assert found["counter"].__module__ == "collections"
    assert found["meter"].__module__ == "pkg_one"


def test_second_package_with_a_taken_name_is_ignored(install):
    install("pkg_one", "meter = pkg_one:Meter", code="class Meter: pass")
    install("pkg_two", "meter = pkg_two:Meter", code="class Meter: pass")
    found = registry()
    with pytest.warns(UserWarning, match=r"The entry point 'meter' .* is ignored: the name is taken") as caught:
        module = found["meter"].__module__
    assert len(caught) == 1
    ignored = {"pkg_one": "pkg_two", "pkg_two": "pkg_one"}[module]
    assert f"({ignored}:Meter)" in str(caught[0].message)


def test_same_entry_of_two_installations_is_accepted(install):
    install("pkg_one", "meter = pkg_one:Meter", code="class Meter: pass")
    install("pkg_one_editable", "meter = pkg_one:Meter")
    found = registry()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert found["meter"].__module__ == "pkg_one"


def test_installed_packages_are_read_once(install):
    found = registry()
    assert len(found) == 2
    install("pkg_one", "meter = pkg_one:Meter")
    assert len(found) == 2
    assert len(registry()) == 3
