"""Versions of the dependencies: lower limits, pins and hashes."""

import re
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

if sys.version_info < (3, 11):
    pytest.skip("tomllib needs Python 3.11", allow_module_level=True)

import tomllib

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

FIRST_SAFE = {
    "lightning": "2.6.6",  # GHSA-w37p-236h-pfx3
    "torch": "2.6",  # CVE-2025-32434: code execution in `torch.load(weights_only=True)`
    "filelock": "3.20.3",  # CVE-2025-68146, CVE-2026-22701: symbolic links
    "onnx": "1.21",  # CVE-2026-27489, CVE-2026-34446, CVE-2026-34447: files outside the directory of a model
    "pyarrow": "23.0.1",  # CVE-2023-47248: code execution; CVE-2026-25087: use after free
    "scikit-learn": "1.5",  # CVE-2024-5206
    "mkdocs-material": "9.5.32",  # cross-site scripting in the search
    "pytest": "9.0.3",  # CVE-2025-71176: predictable temporary directory
}


def requirements():
    lists = [PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"].values()]
    return {one.name: one for each in lists for one in map(Requirement, each) if one.name != "lightning-green"}


def pins(name):
    """Return the pinned versions of each package in a file."""
    found = {}
    for line in (ROOT / name).read_text().splitlines():
        if match := re.match(r"([a-z0-9._-]+)==([^ ;]+)", line):
            found.setdefault(match[1], set()).add(match[2])
    return found


@pytest.mark.parametrize("name", sorted(FIRST_SAFE))
def test_lower_limit_excludes_known_vulnerabilities(name):
    (floor,) = [Version(one.version) for one in requirements()[name].specifier if one.operator == ">="]
    assert floor >= Version(FIRST_SAFE[name])
    assert all(Version(version) >= floor for version in pins("constraints.txt")[name])


def test_every_direct_dependency_has_a_lower_limit_and_a_pin():
    for name, one in requirements().items():
        assert any(part.operator in (">=", "==") for part in one.specifier), name
        assert name in pins("constraints.txt")


def test_hashes_are_those_of_the_constraints():
    assert pins("requirements-hashes.txt") == pins("constraints.txt")
    blocks = re.split(r"\n(?=[a-z0-9])", (ROOT / "requirements-hashes.txt").read_text())[1:]
    assert len(blocks) > 200
    assert all("--hash=sha256:" in block for block in blocks)


def test_build_tools_are_pinned():
    for one in map(Requirement, PROJECT["build-system"]["requires"]):
        (part,) = one.specifier
        assert (part.operator, {part.version}) == ("==", pins("constraints.txt")[one.name])


def test_audit_is_a_listed_command():
    text = (ROOT / "Makefile").read_text()
    assert "#   make audit " in text
    assert re.search(r"^audit:", text, re.MULTILINE)
    assert re.search(r"^PIP_AUDIT := \d", text, re.MULTILINE)
