"""Look for the words of ``words.txt`` in the files that git tracks; exit with 1 where one is found.

Examples:
    ```bash
    python scripts/check_words.py              # all tracked files
    python scripts/check_words.py README.md    # these files
    ```

"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORDS = Path(__file__).with_name("words.txt")
SUFFIXES = {".cff", ".md", ".py", ".toml", ".yaml", ".yml"}


def read_words(path: Path = WORDS) -> list[tuple[re.Pattern[str], str]]:
    """Return each pattern of the word list with its suggestion."""
    rows = (line.split(" -> ", 1) for line in path.read_text().splitlines() if line and not line.startswith("#"))
    return [(re.compile(rf"(?<![\w-])(?:{word})(?!\w)", re.IGNORECASE), advice) for word, advice in rows]


def find_words(text: str, words: list[tuple[re.Pattern[str], str]]) -> Iterator[tuple[int, str, str]]:
    """Yield line number, word and suggestion for every word of the list in ``text``."""
    for number, line in enumerate(text.splitlines(), 1):
        if "codespell:ignore" not in line:
            for pattern, advice in words:
                for match in pattern.finditer(line):
                    yield number, match[0], advice


def tracked_files() -> list[Path]:
    """Return the files of the repository that git tracks."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [ROOT / name for name in listed.splitlines()]


def main(arguments: list[str]) -> int:
    """Print ``file:line: word -> suggestion`` for every hit; return the exit code."""
    words, hits = read_words(), 0
    for path in [Path(name).resolve() for name in arguments] or tracked_files():
        if path.suffix in SUFFIXES and path.is_file():
            for number, word, advice in find_words(path.read_text(encoding="utf-8"), words):
                name = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
                print(f"{name}:{number}: {word!r} -> {advice}")
                hits += 1
    return int(hits > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
