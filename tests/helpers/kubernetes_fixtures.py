"""Fixtures of a fake cluster."""

import pytest

from lightning_green.supervisor.launchers import kubernetes_api
from tests.helpers.fake_kubernetes import fake_cluster, make_certificate


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificates")
    make_certificate(folder)
    return folder


@pytest.fixture
def cluster(tmp_path, certificates, monkeypatch):
    """Yield a cluster whose requests are tried again without long waits."""
    monkeypatch.setattr(kubernetes_api, "_READ_SECONDS", 0.3)
    monkeypatch.setattr(kubernetes_api, "_LONGEST_WAIT_SECONDS", 0.01)
    with fake_cluster(tmp_path / "serviceaccount", certificates) as found:
        yield found
