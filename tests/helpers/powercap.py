"""Directories like ``/sys/class/powercap``."""


def packages(folder, watts=(200, 150)):
    """Create packages with a long-term and a short-term power limit; return the directory."""
    for number, limit in enumerate(watts):
        zone = folder / f"intel-rapl:{number}"
        zone.mkdir(parents=True)
        (zone / "name").write_text(f"package-{number}\n")
        (zone / "constraint_0_name").write_text("long_term\n")
        (zone / "constraint_0_power_limit_uw").write_text(f"{limit * 1_000_000}\n")
        (zone / "constraint_1_name").write_text("short_term\n")
        (zone / "constraint_1_power_limit_uw").write_text("999000000\n")
    return folder


def limits(folder):
    """Return the long-term limits in W."""
    return [int(path.read_text()) / 1e6 for path in sorted(folder.glob("*/constraint_0_power_limit_uw"))]


def counters(folder, packages=2, dram=True, start=0, wraps_at=262_143_328_850):
    """Create zones with energy counters, including those that must not be counted; return the directory."""
    for number in range(packages):
        for name, kind in [("", f"package-{number}"), (":0", "core"), (":1", "dram")]:
            if name == ":1" and not dram:
                continue
            zone = folder / f"intel-rapl:{number}{name}"
            zone.mkdir(parents=True)
            (zone / "name").write_text(kind + "\n")
            (zone / "energy_uj").write_text(f"{start}\n")
            (zone / "max_energy_range_uj").write_text(f"{wraps_at}\n")
    (folder / "intel-rapl-mmio:0").mkdir()
    (folder / "intel-rapl-mmio:0" / "name").write_text("package-0\n")
    (folder / "intel-rapl:9").mkdir()
    (folder / "intel-rapl:9" / "name").write_text("psys\n")
    return folder


def set_counter(folder, zone, microjoules):
    """Set the energy counter of a zone."""
    (folder / zone / "energy_uj").write_text(f"{microjoules}\n")


def package_with_counter(folder):
    """Create a package with an energy counter and a power limit of 200 W; return the path of the limit."""
    zone = folder / "intel-rapl:0"
    zone.mkdir(parents=True)
    for name, text in [
        ("name", "package-0"),
        ("energy_uj", "0"),
        ("max_energy_range_uj", "262143328850"),
        ("constraint_0_name", "long_term"),
        ("constraint_0_power_limit_uw", "200000000"),
    ]:
        (zone / name).write_text(text + "\n")
    return zone / "constraint_0_power_limit_uw"
