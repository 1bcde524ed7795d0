"""``python -m lightning_green`` is ``lightning-green``."""

from lightning_green.cli.main import app

if __name__ == "__main__":
    app(prog_name="lightning-green")
