"""The registry of the pipelines, and the files that they read."""

import sys

import pytest

from tests.helpers.processes import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

from data_pipelines import samples, streams


def test_two_pipelines_with_one_name_are_an_error(monkeypatch):
    monkeypatch.setattr(samples, "PIPELINES", {})
    samples.register("one", list)
    with pytest.raises(ValueError, match="two pipelines with the name `one`"):
        samples.register("one", list)


def test_loader_of_ones_own_draws_another_order_in_each_pass():
    loader = streams.loader_of_ones_own()
    first, second = (list(loader) for _ in range(2))
    assert not any((one - 1).equal(other - 2) for one, other in zip(first, second, strict=True))


def test_written_file_is_in_the_working_directory_and_is_not_written_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert samples.written("numbers", lambda path: path.write_text("1")) == tmp_path / "numbers"
    with open(samples.written("numbers", lambda path: path.write_text("2"))) as file:
        assert file.read() == "1"
    assert [path.name for path in tmp_path.iterdir()] == ["numbers"]
