"""Changes of a pass over the data are repeated at the reads at which they happened."""

from lightning_green.resume.pass_record import PassRecord
from lightning_green.resume.pipeline_state import PipelineState
from tests.helpers.keeper import Keeper, count


def test_changes_between_reads_are_repeated_at_the_same_read():
    def read(one, number, record, change):
        numbers = []
        for index in range(number):
            record.before_read(index)
            numbers.append(one.scale * index)
            record.after_read(index + 1)
            if change and index == 2:
                one.scale = 10
        return numbers

    one = Keeper(count, scale=1)
    state = PipelineState(one)
    began, record = state.capture(), PassRecord(state)
    expected = read(one, 6, record, change=True)
    other = Keeper(count, scale=1)
    resumed = PipelineState(other)
    resumed.restore(state.capture())
    resumed.restore(began)
    assert read(other, 6, PassRecord(resumed, record.later), change=False) == expected
    assert not record.changes_often


def test_changes_at_many_reads_are_reported():
    one = Keeper(count)
    state = PipelineState(one)
    record = PassRecord(state)
    for index in range(6):
        record.before_read(index)
        record.after_read(index + 1)
        one()
    assert record.changes_often


def test_changes_since_the_same_read_are_one():
    one = Keeper(count)
    state = PipelineState(one)
    record = PassRecord(state)
    record.before_read(0)
    record.after_read(1)
    for _ in range(8):
        one()
        record.note_change()
    assert [number for number, _ in record.later] == [1]
    assert record.later[0][1]["values"]["0"]["count"]["value"] == 8
