"""Small files under ``/sys``."""

from pathlib import Path

import pytest

from lightning_green.throttle.errors import ThrottleError
from lightning_green.throttle.sysfs import read_text, write_texts


def test_text_is_written_with_the_end_of_line_and_read_without_it(tmp_path):
    paths = [tmp_path / "limit", tmp_path / "governor"]
    write_texts({str(paths[0]): "150000000", str(paths[1]): "powersave"})
    assert [path.read_bytes() for path in paths] == [b"150000000\n", b"powersave\n"]
    assert [read_text(path) for path in paths] == ["150000000", "powersave"]


def test_missing_permission_reports_path_and_remedy(tmp_path, monkeypatch):
    def refuse(self, *args, **kwargs):  # the tests may run as root, for whom file modes do not apply
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(ThrottleError, match=f"no permission to write {tmp_path}/limit; run as root or ask"):
        write_texts({str(tmp_path / "limit"): "1"})


def test_file_that_cannot_be_accessed_is_an_os_error(tmp_path):
    with pytest.raises(IsADirectoryError):
        write_texts({str(tmp_path): "1"})
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "missing")
