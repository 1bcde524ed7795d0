"""Points at which a script of a test waits."""

import time


def gate(folder, name):
    """Wait while the file ``gates/name`` exists in ``folder``, next to a new file with the suffix ``.here``."""
    file = folder / "gates" / name
    if file.exists():
        file.with_suffix(".here").touch()
        while file.exists():
            time.sleep(0.02)
