"""Imports point one way: a package imports only packages before it in ``ORDER``, and no two files import each other."""

import ast
import re
import sys
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import lightning_green

PACKAGE = Path(lightning_green.__file__).parent
ORDER = [
    "utilities",
    "_lightning",
    "planning",
    "backtest",
    "compression",
    "energy",
    "grid",
    "strategies",
    "ledger",
    "throttle",
    "resume",
    "supervisor",
    "kubernetes",
    "run",
    "report",
    "budget",
    "doctor",
    "metrics",
    "precision",
    "callbacks",
    "check",
    "cli",
]
MODULES = {
    ".".join(("lightning_green", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}


def imported(name):
    """Return the modules of the package that a module imports, also inside functions and for types alone."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} has a relative import"
            for alias in node.names:
                module = f"{node.module}.{alias.name}"
                found.add(module if module in MODULES else node.module)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return {module for module in found if module in MODULES and module != name}


def test_every_package_has_its_place_in_the_order():
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert folders == set(ORDER)


def test_no_package_imports_a_later_one():
    upward = []
    for name in MODULES:
        if name in ("lightning_green", "lightning_green.__main__"):
            continue
        here = ORDER.index(name.split(".")[1])
        upward += [
            f"{name} imports {module}"
            for module in imported(name)
            if module == "lightning_green" or ORDER.index(module.split(".")[1]) > here
        ]
    assert upward == []


def test_no_two_files_import_each_other():
    graph = {name: imported(name) for name in MODULES}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None


def packages_of(name):
    """Return the names of the packages and modules of a distribution; none if it is not installed."""
    try:
        files = distribution(name).files or []
    except PackageNotFoundError:
        return set()
    return {file.parts[0].partition(".")[0] for file in files}


def test_every_imported_distribution_is_declared():
    declared = set(re.findall(r'"([\w-]+)[\[><=]', (PACKAGE.parent / "pyproject.toml").read_text()))
    nodes = [node for path in MODULES.values() for node in ast.walk(ast.parse(path.read_text()))]
    names = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    names |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    tops = {name.split(".")[0] for name in names} - {"lightning_green", *sys.stdlib_module_names}
    assert tops <= {top for name in declared for top in packages_of(name)}
