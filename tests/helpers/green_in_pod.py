"""``lightning-green`` with the service account of a fake cluster: python green_in_pod.py DIRECTORY ARGUMENTS..."""

import sys
from pathlib import Path

from lightning_green.cli.main import app
from lightning_green.supervisor.launchers import kubernetes_api

if __name__ == "__main__":
    kubernetes_api.SERVICE_ACCOUNT = Path(sys.argv.pop(1))
    app()
