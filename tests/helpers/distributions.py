"""Installing a distribution with entry points into a temporary directory."""

import importlib
from contextlib import contextmanager


@contextmanager
def installed_distribution(folder, monkeypatch, registry, entry_points, modules):
    """Install a distribution whose entry points belong to a registry.

    Args:
        folder: Empty directory, which is added to ``sys.path``.
        monkeypatch: The pytest fixture.
        registry: Registry whose group the entry points belong to. It reads its entry points again.
        entry_points: ``"module:attribute"`` by name.
        modules: Source code by module name.

    """
    metadata = folder / "some_package-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: some-package\nVersion: 1.0\n")
    lines = [f"{name} = {value}" for name, value in entry_points.items()]
    (metadata / "entry_points.txt").write_text("\n".join([f"[{registry.group}]", *lines, ""]))
    for name, source in modules.items():
        (folder / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(str(folder))
    importlib.invalidate_caches()
    vars(registry).pop("_installed", None)
    try:
        yield
    finally:
        vars(registry).pop("_installed", None)
