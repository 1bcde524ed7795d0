"""One training of ``peers.py`` in a process of its own: ``python benchmarks/peers_training.py FOLDER``.

``FOLDER/options.json`` contains the options. The process writes ``progress.json`` while it trains, so that it may be
killed at any time, and ``result.json`` at the end. Times are those of the monotonic clock, which all processes share.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import CSVLogger
from peers_cases import CASES, PlannedExit
from step_times import BATCH, WIDTH, Net
from torch.utils.data import DataLoader, TensorDataset

PROGRESS_SECONDS = 0.1
POWERCAP = Path("/sys/class/powercap")


@dataclass
class Options:
    """What one process does.

    Args:
        case: Name of the tool in ``peers_cases.CASES``, or ``"planned_exit"``.
        work: Passes of ``Net`` in a step.
        steps: Steps of an epoch.
        epochs: Epochs.
        wait: Seconds that one step in the middle of the training waits.
        accelerator: Accelerator of the Trainer.
        whole_node: Whether ours counts the energy of the whole machine.
        counter: ``"rapl"``, ``"nvml"``, or None for no comparison with a counter.

    """

    case: str
    work: int = 0
    steps: int = 100
    epochs: int = 1
    wait: float = 0.0
    accelerator: str = "cpu"
    whole_node: bool = False
    counter: str | None = None

    def write(self, folder: Path) -> None:
        """Write the options of the process that gets this directory."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "options.json").write_text(json.dumps(asdict(self)))


def counted(counter: str | None) -> float | None:
    """Return the value of a counter in J, or None without one."""
    if counter == "rapl":
        zones = POWERCAP.glob("intel-rapl:*/energy_uj")
        return sum(int(zone.read_text()) for zone in zones if zone.parent.name.count(":") == 1) / 1e6
    if counter == "nvml":
        from tests.helpers.resnet_step import job_gpu, joules

        return joules(job_gpu())
    return None


def peak_memory() -> float:
    """Return the peak resident memory of this process in MiB."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


class Progress:
    """Notes when the training was, and what the counter showed there.

    Args:
        folder: Directory of ``progress.json``.
        options: Options of the process.

    """

    def __init__(self, folder: Path, options: Options) -> None:
        self.path, self.options = folder / "progress.json", options
        self.steps, self.written = 0, 0.0
        self.found: dict[str, float | None] = {}

    def step(self) -> None:
        """Note the beginning of a step; wait in the middle of the training."""
        now = time.monotonic()
        if self.steps == 0:
            self.found |= {"first_step": now, "from": counted(self.options.counter)}
        self.found["last_step"] = now
        if self.options.wait and self.steps == self.options.steps * self.options.epochs // 2:
            time.sleep(self.options.wait)
        self.steps += 1
        if self.options.counter is not None and now - self.written > PROGRESS_SECONDS:
            self.written = now
            self.write()

    def write(self) -> None:
        """Write what is known, with the counter."""
        self.found["until"] = counted(self.options.counter)
        following = self.path.with_suffix(".next")
        following.write_text(json.dumps(self.found))
        following.replace(self.path)


def main() -> None:
    folder = Path(sys.argv[1])
    options = Options(**json.loads((folder / "options.json").read_text()))
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    component = "gpu" if options.counter == "nvml" else "cpu"
    case = {**CASES, "planned_exit": PlannedExit}[options.case](folder, options.epochs, component, options.whole_node)
    trainer = pl.Trainer(
        max_epochs=options.epochs,
        accelerator=options.accelerator,
        devices=1,
        callbacks=case.callbacks(),
        logger=CSVLogger(folder / "log"),
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    data = DataLoader(TensorDataset(torch.randn(BATCH * options.steps, WIDTH)), batch_size=BATCH, shuffle=True)
    with case.around():
        progress = Progress(folder, options)
        trainer.fit(Net(options.work, progress.step, on_device=True), data)
        progress.write()
    result = progress.found | {"peak_mib": peak_memory()}
    if options.counter is not None:
        result["joules"] = case.joules()
    (folder / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
