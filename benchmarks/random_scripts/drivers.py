"""The files next to `train.py`: the driver that starts it several times, and the trace of the grid."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from random_scripts.choices import CLEAN, DIRTY, START, Driver, Scenario


def driver_text(driver: Driver) -> str:
    """Return the text of the file that starts `train.py` several times."""
    line = {
        "env": "SEED=$s python train.py",
        "seed": "python train.py --seed $s",
        "lr": "python train.py --lr $s",
        "cwd": "(mkdir -p run$s && cd run$s && echo $s > seed.txt && exec python ../train.py)",
        "nothing": "python train.py >> out$s.jsonl",
    }[driver.distinguished_by]
    if driver.language == "python":
        return _python_text(driver, [line.replace("$s", value) for value in driver.values])
    loop = f"for s in {' '.join(driver.values)}; do\n    {line}{' &' if driver.parallel else ''}\n"
    if not driver.parallel:
        return f"{'set -e' if driver.strict else '# a failed training is ignored'}\n{loop}done\n"
    if not driver.strict:
        return f"{loop}done\nwait\n"
    wait = 'code=0\nfor pid in "${pids[@]}"; do\n    wait "$pid" || code=$?\ndone\nexit $code\n'
    return f"pids=()\n{loop}    pids+=($!)\ndone\n{wait}"


def _python_text(driver: Driver, lines: Sequence[str]) -> str:
    text = "import subprocess\nimport sys\n\nCOMMANDS = [\n"
    text += "".join(f"    {line!r},\n" for line in lines) + "]\n"
    if not driver.parallel:
        return f"{text}for command in COMMANDS:\n    subprocess.run(command, shell=True, check={driver.strict})\n"
    text += "processes = [subprocess.Popen(command, shell=True) for command in COMMANDS]\n"
    text += "codes = [process.wait() for process in processes]\n"
    return f"{text}sys.exit(next((code for code in codes if code), 0))\n" if driver.strict else text


def trace(made: Scenario) -> str:
    """Return the hourly intensities of the grid as CSV."""
    rows = ["datetime,carbon_intensity"]
    for hour in range(-24, 24 * 30):
        value = DIRTY if any(begin <= hour < end for begin, end in made.dirty) else CLEAN
        rows.append(f"{(START + timedelta(hours=hour)).isoformat()},{value}")
    return "\n".join(rows) + "\n"
