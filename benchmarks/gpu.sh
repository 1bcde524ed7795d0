#!/usr/bin/env bash
# Measure on an NVIDIA GPU within ten minutes and write one JSON file.
#
#   bash benchmarks/gpu.sh [FILE]      FILE: gpu.json by default; PYTHON: the interpreter, python by default
#
# Each part has its own time limit, and the cheapest parts come first. A part that fails or runs out of time has an entry
# with its exit status (124: out of time) and its last lines. The settings of the GPU are never changed.
set -uo pipefail
cd "$(dirname "$0")/.."

output=$(realpath -m "${1:-gpu.json}")
python=${PYTHON:-python}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

part() { # NAME SECONDS COMMAND...
  local name=$1 limit=$2
  shift 2
  echo "$name: $*" >&2
  printf '%s\n' "$*" > "$folder/$name.command"
  timeout --kill-after 5 "$limit" "$@" > "$folder/$name.out" 2> "$folder/$name.err"
  echo $? > "$folder/$name.status"
}

# 15 + 105 + 40 + 80 + 80 + 80 + 150 = 550 seconds, and at most five more for each part that has to be killed.
part meters 15 "$python" -m lightning_green meters --json
part power 105 "$python" benchmarks/gpu_power.py --json --seconds 8 --rest 20
part sparse_kernels 40 "$python" benchmarks/sparse_kernels.py --json
part precision 80 "$python" benchmarks/precision.py --quick --json --device cuda --sessions 4
part peers 80 "$python" benchmarks/peers.py --quick --only energy --cases nothing codecarbon tracker --json --device cuda
part overhead 80 "$python" benchmarks/overhead.py --json --device cuda --sessions 2 --pairs 6
part tests 150 "$python" -m pytest -q -m gpu -p no:cacheprovider tests

"$python" - "$folder" "$output" << 'END'
"""Merge the outputs of the parts."""
import json
import platform
import sys
from datetime import datetime, timezone
from pathlib import Path

import lightning
import torch

folder, output = Path(sys.argv[1]), Path(sys.argv[2])
card = {"name": None, "driver": None}
try:
    import pynvml

    pynvml.nvmlInit()
    card = {"name": torch.cuda.get_device_name(), "driver": pynvml.nvmlSystemGetDriverVersion()}
except Exception as error:
    card["reason"] = str(error)
result = {
    "card": card,
    "torch": torch.__version__,
    "lightning": lightning.__version__,
    "python": platform.python_version(),
    "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    "command": "bash benchmarks/gpu.sh",
    "parts": {},
}
for path in sorted(folder.glob("*.status"), key=lambda path: path.stat().st_mtime_ns):
    name = path.stem
    lines = (folder / f"{name}.out").read_text().splitlines()
    found = {"command": (folder / f"{name}.command").read_text().strip(), "status": int(path.read_text())}
    try:
        found["result"] = json.loads("\n".join(lines) if name == "meters" else lines[-1])
    except (ValueError, IndexError):
        found["last_lines"] = (lines + (folder / f"{name}.err").read_text().splitlines())[-15:]
    result["parts"][name] = found
output.write_text(json.dumps(result, indent=1) + "\n")
print(output)
END
