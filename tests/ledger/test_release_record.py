"""What starts a run again while no supervisor is running."""

import pytest

from lightning_green.ledger.release_record import FILE, read_release, write_release


def test_record_is_that_of_the_command_for_all_of_its_runs(tmp_path):
    assert read_release(tmp_path) is None
    write_release(tmp_path, "SLURM job 7")
    assert read_release(tmp_path) == read_release(tmp_path / "runs" / "second") == "SLURM job 7"
    write_release(tmp_path, None)
    write_release(tmp_path, None)
    assert read_release(tmp_path) is None


@pytest.mark.parametrize("text", ["", "[]", '{"by": 7}', '{"by": ""}', "\0", "x" * 5000])
def test_damaged_record_is_none(tmp_path, text):
    (tmp_path / FILE).write_text(text)
    assert read_release(tmp_path) is None


def test_name_is_printable_and_short(tmp_path):
    write_release(tmp_path, "job\x1b[2J" + "7" * 200)
    assert read_release(tmp_path) == "job?[2J" + "7" * 73


def test_directory_that_cannot_be_written_has_no_effect(tmp_path):
    write_release(tmp_path / "missing", "SLURM job 7")
    assert read_release(tmp_path / "missing") is None
