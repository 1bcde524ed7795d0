"""The sources that are available for a zone."""

from lightning_green.grid.doctor import candidates


def test_candidates_depend_on_zone_and_credentials():
    both = {"ELECTRICITYMAPS_API_TOKEN": "t", "WATTTIME_USERNAME": "u", "WATTTIME_PASSWORD": "p"}

    def asked(zone, environ):
        return [name for name, signal in candidates(zone, environ) if not isinstance(signal, str)]

    assert asked("DE", both) == ["electricity-maps", "energy-charts"]
    assert asked("38.5,-121.5", both) == ["electricity-maps", "watttime"]
    assert asked("CAISO_NORTH", both) == ["watttime"]
    assert asked("GB", {}) == asked("UK", {}) == ["neso"]
    assert asked("GB-NIR", {}) == []
    assert asked("DK2", {}) == ["energi-data-service"]
    assert asked(None, both) == []
