"""A message about a run that is not saved counts only before the first stop of its fit."""

import json
import sys

import pytest

from lightning_green.run.save_limits import EPOCHS_ONLY, METERED_ONLY
from tests.helpers.processes import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import pipelines
import run_records

STARTED, PAUSED, FINISHED = {"event": "started"}, {"event": "paused", "reason": "dirty"}, {"event": "finished"}
PERIODIC, SIGTERM = {"event": "checkpoint", "reason": "periodic"}, {"event": "checkpoint", "reason": "SIGTERM"}
INTERRUPTED = {"event": "interrupted", "reason": "SIGTERM: stopped, with nothing saved, at step 3"}
EPOCHS, METERED = ({"event": "warning", "reason": f"{text}: why."} for text in (EPOCHS_ONLY, METERED_ONLY))


def events(*attempts, fit=0):
    return [{**event, "attempt": number, "fit": fit} for number, attempt in enumerate(attempts, 1) for event in attempt]


BEFORE = {
    "at the start": events([STARTED, METERED], [STARTED, FINISHED]),
    "after a periodic checkpoint": events([STARTED, PERIODIC, EPOCHS, INTERRUPTED], [STARTED]),
    "in the second fit, after an exit in the first one": [
        *events([STARTED, PAUSED], [STARTED, FINISHED]),
        *events([], [STARTED, EPOCHS, PAUSED], [STARTED, FINISHED], fit=1),
    ],
}
AFTER = {
    "after a saved SIGTERM": events([STARTED, SIGTERM, EPOCHS, INTERRUPTED], [STARTED, FINISHED]),
    "after an exit": events([STARTED, PAUSED], [STARTED, METERED, FINISHED]),
    "after a kill": events([STARTED, PERIODIC], [STARTED, METERED, FINISHED]),
}


@pytest.mark.parametrize("case", BEFORE)
def test_message_before_the_first_stop_of_its_fit_counts(case):
    assert run_records.reported_before_stop(BEFORE[case]).endswith(": why.")


@pytest.mark.parametrize("case", AFTER)
def test_message_after_a_stop_does_not_count(case):
    assert run_records.reported_before_stop(AFTER[case]) == ""


def test_fits_of_different_runs_are_distinguished(tmp_path):
    for name, lines in (("first", events([STARTED, PAUSED])), ("second", events([STARTED, METERED]))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "ledger.node.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert run_records.reported_before_stop(run_records.ledger_events(tmp_path)) == METERED["reason"]


def test_each_stop_of_a_pipeline_is_saved_or_reported_before():
    never = events([STARTED, SIGTERM, INTERRUPTED], [STARTED, INTERRUPTED], [STARTED, FINISHED])
    assert pipelines.verdict([0, 0, 0], 1, never, "") == ("failed", "1 of 2 stops were saved, and 0 reported")
    after = events([STARTED, INTERRUPTED], [STARTED, METERED, INTERRUPTED], [STARTED, FINISHED])
    assert pipelines.verdict([0, 0, 0], 0, after, "") == ("failed", "0 of 2 stops were saved, and 1 reported")
    later = events([STARTED, SIGTERM, INTERRUPTED], [STARTED, METERED, INTERRUPTED], [STARTED, FINISHED])
    assert pipelines.verdict([0, 0, 0], 1, later, "") == ("reported", METERED["reason"])
    early = events([STARTED, METERED, INTERRUPTED], [STARTED, INTERRUPTED], [STARTED, FINISHED])
    assert pipelines.verdict([0, 0, 0], 0, early, "") == ("reported", METERED["reason"])
    assert pipelines.verdict([0, 0, 0], 2, later[:1], "other weights")[0] == "silent"


def test_records_around_a_cut_line_are_read(tmp_path):
    path = tmp_path / "record.jsonl"
    path.write_text('{"kind": 1}\n{"ki{"kind": 2}\n{"kind"')
    assert run_records.json_lines(path) == [{"kind": 1}]
    assert run_records.json_lines(path, '{"kind"') == [{"kind": 1}, {"kind": 2}]


def test_outcomes_differ_in_batches_and_results():
    one = run_records.Outcome([{"step": 4, "weights": "a"}], {("Net", 0, 0, "1"), ("Net", 0, 1, "2")})
    other = run_records.Outcome([{"step": 4, "weights": "b"}], {("Net", 0, 0, "1"), ("Net", 0, 1, "3"), ("Net", 0, 2)})
    assert one.difference(other) == "1 batches differ, the first at epoch 0, batch 1; +1 batches; other weights"
    assert one.difference(one) == ""
