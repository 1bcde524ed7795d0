"""Scripts that run in forks of one process: their arguments, output and exit codes, and those that do not end."""

import sys

import pytest

from tests.helpers.processes import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

from zygote import Job, Zygote, environment

SCRIPT = """
import atexit, os, sys, time
atexit.register(print, "at exit")
print(os.getcwd(), os.environ["MORE"], os.environ["OWN"], *sys.argv[1:])
what = sys.argv[1]
if what == "sleep":
    time.sleep(100)
elif what == "raise":
    raise ValueError("of the script")
elif what != "0":
    sys.exit(int(what))
"""


@pytest.fixture
def run(tmp_path):
    """Return a function that runs the script with each of some arguments at the same time."""
    (tmp_path / "script.py").write_text(SCRIPT)
    with Zygote(preload=("json", "no_such_package"), variables={"MORE": "more"}) as zygote:

        def run(*arguments, limit=60.0, output=None):
            jobs = [
                Job(tmp_path / "script.py", tmp_path, tmp_path / f"log{number}", (one,), {"OWN": str(number)}, output)
                for number, one in enumerate(arguments)
            ]
            return zygote.run(jobs, limit)

        yield run


def test_jobs_have_their_own_output_variables_and_exit_codes(run, tmp_path):
    ended = run("0", "3", "raise")
    assert (ended.codes, ended.hung, ended.orphans) == ([0, 3, 1], False, 0)
    logs = [(tmp_path / f"log{number}").read_text() for number in range(3)]
    assert logs[:2] == [f"{tmp_path} more {number} {one}\nat exit\n" for number, one in ((0, "0"), (1, "3"))]
    assert "ValueError: of the script" in logs[2]
    assert run("0").codes == [0]
    assert (tmp_path / "log0").read_text() == 2 * logs[0]


def test_standard_output_has_a_file_of_its_own(run, tmp_path):
    run("raise", output=tmp_path / "output")
    assert (tmp_path / "output").read_text() == f"{tmp_path} more 0 raise\nat exit\n"
    assert "ValueError" in (tmp_path / "log0").read_text()


def test_jobs_are_killed_after_the_time_limit(run):
    ended = run("sleep", limit=0.5)
    assert (ended.codes, ended.hung, ended.orphans) == ([-9], True, 0)
    assert run("0").codes == [0]


def test_variables_of_other_runs_and_launchers_are_left_out(monkeypatch):
    for name in ("LIGHTNING_GREEN_RUN_DIR", "RANK", "MASTER_PORT", "FAULTS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("KEPT", "1")
    found = environment(STOP="3")
    assert {"LIGHTNING_GREEN_RUN_DIR", "RANK", "MASTER_PORT", "FAULTS"}.isdisjoint(found)
    assert (found["KEPT"], found["STOP"], found["PYTHONPATH"]) == ("1", "3", str(ROOT))
