"""The Prometheus meter with a local server."""

from types import SimpleNamespace

from lightning_green.energy.prometheus import PrometheusMeter


def test_power_is_integrated_and_long_gap_is_modeled(server, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("lightning_green.energy.wall.time", SimpleNamespace(monotonic=lambda: now[0]))
    result = [{"metric": {}, "value": [1.0, "100"]}]
    body = {"status": "success", "data": {"resultType": "vector", "result": result}}
    server.answer = (200, body)
    meter = PrometheusMeter(server.url, "node_power", every="10s")
    meter.start()
    now[0] = 10.0
    meter.sample()
    assert meter.read() == {"other": (1000.0, "measured")}
    server.answer = (200, {"status": "success", "data": {"resultType": "vector", "result": result * 2}})
    meter.sample()
    assert "2 series" in meter.problem
    server.answer = (200, body)
    now[0] = 80.0
    meter.close()  # after a gap of more than a minute
    assert meter.read() == {"other": (8000.0, "modelled")}
    assert server.seen[0][0] == "/api/v1/query?query=node_power"
