"""Trees like ``/sys/class/powercap``, of our own."""


def packages(folder, watts=(200, 150)):
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
    return [int(path.read_text()) / 1e6 for path in sorted(folder.glob("*/constraint_0_power_limit_uw"))]
