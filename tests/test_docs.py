"""The documentation has a reference entry for every public name, lists every page, and builds without a warning."""

import ast
import dataclasses
import importlib
import re
import subprocess
import sys
import textwrap
import zlib
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

import lightning_green
from lightning_green.grid import build_grid
from lightning_green.ledger import events
from lightning_green.ledger.power import energy_kwh
from lightning_green.ledger.totals import Totals
from lightning_green.run.figures import empty_summary
from tests._lightning.test_private_attributes import PLACES
from tests.test_imports import MODULES, ORDER, imported

PACKAGE = Path(lightning_green.__file__).parent
ROOT = PACKAGE.parent
DOCS = ROOT / "docs"
FIGURES = PACKAGE / "run" / "figures.py"
PUBLIC = [
    "lightning_green",
    *(
        f"lightning_green.{name}"
        for name in (
            "backtest",
            "budget",
            "callbacks",
            "compression",
            "energy",
            "grid",
            "ledger",
            "metrics",
            "planning",
            "precision",
            "report",
            "strategies",
            "throttle",
            "throttle.actuators",
            "utilities",
        )
    ),
]
REST = {
    "a role such as :class:`x`": re.compile(r":[a-z]+:`"),
    "a literal block `Example::`": re.compile(r"^\s*Examples?::", re.MULTILINE),
    "a table with rules of `=`": re.compile(r"^\s*=+( +=+)+\s*$", re.MULTILINE),
}


def code_blocks(path, language="python"):
    """Return the code blocks of a page, dedented."""
    blocks = re.findall(rf"^([ ]*)```{language}\n(.*?)^\1```$", path.read_text(), re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(block) for _, block in blocks]


def nav_pages(entry):
    if isinstance(entry, str):
        return [entry]
    children = entry.values() if isinstance(entry, dict) else entry
    return [page for child in children for page in nav_pages(child)]


@pytest.fixture(scope="module")
def config():
    pytest.importorskip("mkdocs", reason="needs the `docs` extra")
    from mkdocs.config import load_config

    return load_config(str(ROOT / "mkdocs.yml"))


def test_every_page_is_in_the_navigation_once(config):
    pages = nav_pages(config["nav"])
    assert sorted(pages) == sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))


def test_every_public_package_has_a_reference_page():
    rendered = re.findall(
        r"^::: (\S+)$", "\n".join(p.read_text() for p in (DOCS / "reference").glob("*.md")), re.MULTILINE
    )
    assert [name for name in PUBLIC if rendered.count(name) != 1] == []


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_importable(name):
    module = importlib.import_module(name)
    assert [missing for missing in module.__all__ if not hasattr(module, missing)] == []


def docstrings(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node, ast.get_docstring(node) or ""


def test_docstrings_have_google_sections_and_markdown_only():
    found = [
        f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}: {what}"
        for path in PACKAGE.rglob("*.py")
        for node, text in docstrings(path)
        for what, pattern in REST.items()
        if pattern.search(text)
    ]
    assert found == []


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Return the folder of the documentation, built with warnings as errors."""
    pytest.importorskip("mkdocs", reason="needs the `docs` extra")
    folder = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert built.returncode == 0, built.stderr
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_has_a_reference_entry(site, name):
    inventory = zlib.decompress((site / "objects.inv").read_bytes().split(b"\n", 4)[4]).decode()
    entries = {line.split(" ")[0] for line in inventory.splitlines()}
    module = importlib.import_module(name)
    missing = []
    for public in module.__all__:
        value = getattr(module, public)
        # a function in a module of the same name has its entry under its full path
        full_path = f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', '')}"
        if not {f"{name}.{public}", full_path} & entries:
            missing.append(public)
    assert missing == []


@pytest.mark.slow
def test_diagrams_are_rendered_by_the_browser(site):
    assert '<pre class="mermaid">' in (site / "architecture" / "index.html").read_text()


def test_grid_provider_of_the_contributor_guide_works():
    (example,) = (block for block in code_blocks(ROOT / "CONTRIBUTING.md") if "(GridSignal)" in block)
    scope = {"__name__": "example"}
    exec(example, scope)
    signal = build_grid(scope["MyUtilitySignal"].from_zone("DE"))
    now = datetime(2024, 5, 1, 5, tzinfo=timezone.utc)
    assert signal.intensity(now).value == 250.0
    assert list(signal.forecast(now, timedelta(hours=3)).values) == [250.0, 400.0, 400.0]
    assert signal.spec()["init_args"] == {"zone": "DE", "day": 400.0, "night": 250.0}


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")], ids=lambda p: p.name
)
def test_files_named_in_the_documentation_exist(page):
    """Paths of the form `folder/file.py`, from the root or from the package."""
    named = re.findall(r"`((?:[\w.]+/)+[\w-]+\.(?:py|md|yaml|yml|toml))`", page.read_text())
    missing = [
        n for n in named if "my_" not in n and not any((base / n).exists() for base in (ROOT, PACKAGE, ROOT / "tests"))
    ]
    assert missing == []


def test_snippets_are_included():
    pages = {page.name: re.findall(r"^.*-8.*<.*$", page.read_text(), re.MULTILINE) for page in DOCS.rglob("*.md")}
    found = [(name, line) for name, lines in pages.items() for line in lines]
    assert found
    assert [(name, line) for name, line in found if not line.startswith('--8<-- "')] == []


def test_every_private_lightning_attribute_is_documented():
    text = (DOCS / "upstream.md").read_text()
    modules = {path.name for path in (PACKAGE / "_lightning").glob("*.py")} - {"__init__.py"}
    assert [name for name in sorted(modules) if f"`_lightning/{name}`" not in text] == []
    assert [name for name in PLACES if f"`{name}`" not in text] == []


def test_citation_has_the_version_of_the_package():
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.search(r"^version: (.+)$", citation, re.MULTILINE)[1] == lightning_green.__version__


def test_architecture_lists_the_packages_in_the_order_of_imports():
    table = (DOCS / "architecture.md").read_text().partition("## Packages")[2].partition("```mermaid")[0]
    listed = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert listed == ORDER[::-1]


def test_architecture_draws_only_dependencies_that_exist():
    text = (DOCS / "architecture.md").read_text().replace("lightning_private", "_lightning")
    rows = re.findall(r"^ +(\w+) --> (\w+(?: & \w+)*)$", text, re.MULTILINE)
    drawn = {(package, other) for package, others in rows for other in others.split(" & ")}
    exist = {
        (name.split(".")[1], module.split(".")[1])
        for name in MODULES
        if name.count(".") > 1
        for module in imported(name)
        if module != "lightning_green"
    }
    assert drawn
    assert drawn - exist == set()


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))], ids=lambda p: p.name)
def test_python_blocks_compile_and_import_public_names(page):
    missing = []
    for block in code_blocks(page):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lightning_green"):
                module = importlib.import_module(node.module)
                names = getattr(module, "__all__", vars(module))
                missing += [f"{node.module}.{name.name}" for name in node.names if name.name not in names]
    assert missing == []


def test_every_logged_energy_and_emission_is_documented():
    section = (DOCS / "meters.md").read_text().partition("## Names in the loggers")[2].partition("\n## ")[0]
    names = {*energy_kwh(Totals()), *empty_summary(), *re.findall(r'"((?:energy|carbon)/\w+)["{]', FIGURES.read_text())}
    assert [name for name in sorted(names) if f"`{name}`" not in section] == []


def subclasses(cls):
    return [one for child in cls.__subclasses__() for one in (child, *subclasses(child))]


def test_every_ledger_event_is_documented_with_its_fields():
    rows = dict(re.findall(r"^\| (`\w+`.*?) \|(.*)$", (DOCS / "ledger.md").read_text(), re.MULTILINE))
    described = {name: row for names, row in rows.items() for name in re.findall(r"`(\w+)`", names)}
    common = {field.name for field in dataclasses.fields(events.Event)}
    missing = []
    for cls in subclasses(events.Event):
        name = cls.__dict__.get("name")
        if name:
            row = described.get(name, "")
            own = {field.name for field in dataclasses.fields(cls)} - common
            missing += [name] if name not in described else []
            missing += [f"{name}.{field}" for field in sorted(own) if f"`{field}`" not in row]
    assert missing == []
