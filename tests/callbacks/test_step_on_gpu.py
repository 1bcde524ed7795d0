"""A step on a GPU does not wait for the device because of the callbacks."""

import warnings

import pytest
import torch

from lightning_green import CarbonScheduler, EmissionsTracker
from tests.callbacks.green_kit import train


class CountsWaits:
    """Count the operations that wait for the device: those that PyTorch warns of, and explicit ones."""

    def __init__(self):
        self.found, self.explicit = [], 0
        self._synchronize = torch.cuda.synchronize

    def __enter__(self):
        def counted(*args):
            self.explicit += 1
            return self._synchronize(*args)

        torch.cuda.synchronize = counted
        torch.cuda.set_sync_debug_mode("warn")
        self._caught = warnings.catch_warnings(record=True)
        self.found = self._caught.__enter__()
        warnings.simplefilter("always")
        return self

    def __exit__(self, *error):
        self._caught.__exit__(*error)
        torch.cuda.set_sync_debug_mode("default")
        torch.cuda.synchronize = self._synchronize

    def count(self):
        return self.explicit + sum("synchronizing CUDA operation" in str(one.message) for one in self.found)


def waits(folder, epochs, callbacks):
    """Return how often a fit waits for the device."""
    options = {"accelerator": "gpu", "devices": 1, "enable_checkpointing": False, "log_every_n_steps": 10_000}
    with CountsWaits() as counted:
        train(folder / f"{len(callbacks)}-{epochs}", *callbacks, max_epochs=epochs, **options)
    return counted.count()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_callbacks_add_no_synchronization_to_a_step(tmp_path):
    def green():
        return [EmissionsTracker(), CarbonScheduler(grid=100.0, zone="XX", deadline="36h", on_pause="hold")]

    of_twelve_more_steps = waits(tmp_path, 2, []) - waits(tmp_path, 1, [])
    assert waits(tmp_path, 2, green()) - waits(tmp_path, 1, green()) == of_twelve_more_steps
