"""Reading what is appended to the ledgers of a run."""

from lightning_green.ledger.events import Sample, Warned
from lightning_green.ledger.ledger import Ledger, read_ledger
from lightning_green.ledger.tail import LedgerTail
from lightning_green.utilities.clock import SystemClock


def names(events):
    return [event.name for event in events]


def test_each_event_is_read_once_and_a_part_of_a_line_is_left_for_later(tmp_path):
    tail, ledger = LedgerTail(tmp_path), Ledger(tmp_path, SystemClock(), 1)
    assert tail.new_events() == []
    ledger.append(Sample())
    ledger.append(Warned(reason="a"))
    assert names(tail.new_events()) == ["sample", "warning"]
    assert tail.new_events() == []
    line = ledger.path.read_bytes().splitlines(keepends=True)[0]
    with ledger.path.open("ab") as file:
        file.write(line[:20])
        file.flush()
        assert tail.new_events() == []
        file.write(line[20:])
    assert names(tail.new_events()) == ["sample"]
    assert tail.size == ledger.path.stat().st_size
    ledger.close()


def test_what_is_there_may_be_left_out(tmp_path):
    ledger = Ledger(tmp_path, SystemClock(), 1)
    ledger.append(Sample())
    tail = LedgerTail(tmp_path, from_end=True)
    ledger.append(Warned(reason="a"))
    assert names(tail.new_events()) == ["warning"]
    ledger.close()


def test_events_of_several_nodes_are_in_the_order_of_the_ledger(tmp_path, monkeypatch):
    ledgers = [Ledger(tmp_path, SystemClock(), 1, node) for node in ("b", "a")]
    for number in range(10):
        ledgers[number % 2].append(Warned(reason=str(number)))
    assert LedgerTail(tmp_path).all_events() == read_ledger(tmp_path)
    monkeypatch.setattr("lightning_green.ledger.tail._MAX_BYTES", 500)  # in parts
    assert sorted(event.reason for event in LedgerTail(tmp_path).all_events()) == sorted(map(str, range(10)))
    for ledger in ledgers:
        ledger.close()


def test_ledger_that_was_deleted_is_read_from_its_new_beginning(tmp_path):
    tail, ledger = LedgerTail(tmp_path), Ledger(tmp_path, SystemClock(), 1)
    for _ in range(5):
        ledger.append(Sample())
    tail.new_events()
    ledger.path.unlink()
    ledger.append(Warned(reason="a"))
    assert names(tail.new_events()) == ["history_missing", "warning"]
    ledger.close()
