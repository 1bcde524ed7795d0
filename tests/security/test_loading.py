"""How files are loaded, in all of the package's source."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "lightning_green"
TREES = {path.relative_to(PACKAGE): ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}
EXECUTING = {
    "pickle": {"load", "loads", "Unpickler"},
    "dill": None,
    "cloudpickle": None,
    "joblib": None,
    "shelve": None,
}


def calls(tree):
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


def test_every_torch_load_uses_weights_only():
    found = 0
    for path, tree in TREES.items():
        for call in calls(tree):
            name = ast.unparse(call.func)
            if name in ("torch.load", "torch.jit.load", "torch.package.PackageImporter", "torch.hub.load"):
                options = {word.arg: word.value for word in call.keywords}
                value = options.get("weights_only")
                assert isinstance(value, ast.Constant), f"{path}:{call.lineno}"
                assert value.value is True, f"{path}:{call.lineno}"
                assert name == "torch.load", f"{path}:{call.lineno}"
                found += 1
    assert found >= 4, "the test does not find the calls any more"


def test_nothing_is_unpickled():
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in EXECUTING:
                names = EXECUTING[node.value.id]
                assert names is not None, f"{path}:{node.lineno}"
                assert node.attr not in names, f"{path}:{node.lineno}"
            if isinstance(node, ast.ImportFrom) and node.module in EXECUTING:
                assert not {one.name for one in node.names} & (EXECUTING[node.module] or {"load"}), path


@pytest.mark.parametrize("function", ["eval", "exec", "compile", "__import__", "os.system", "os.popen"])
def test_no_text_is_executed(function):
    for path, tree in TREES.items():
        for call in calls(tree):
            assert ast.unparse(call.func) != function, f"{path}:{call.lineno}"


def test_numpy_files_contain_no_objects():
    for path, tree in TREES.items():
        for call in calls(tree):
            options = {word.arg: ast.unparse(word.value) for word in call.keywords}
            assert options.get("allow_pickle", "False") == "False", f"{path}:{call.lineno}"


def test_no_command_is_started_through_a_shell():
    for path, tree in TREES.items():
        for call in calls(tree):
            options = {word.arg: ast.unparse(word.value) for word in call.keywords}
            assert options.get("shell", "False") == "False", f"{path}:{call.lineno}"
