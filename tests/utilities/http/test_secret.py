"""Credentials from the environment and from files."""

import pickle

import pytest

from lightning_green.utilities.http.errors import RefusedError
from lightning_green.utilities.http.secret import Secret, read_secret


def test_secret_is_not_printed_or_pickled():
    secret = Secret("s3cret")
    assert "s3cret" not in f"{secret} {secret!r} {secret.digest()}"
    assert secret.reveal() == "s3cret"
    assert secret.digest() != Secret("other").digest()
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(secret)


def test_secret_is_read_from_the_file_or_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("SERVICE_TOKEN", " from-environment ")
    (tmp_path / "token").write_text("from-file\n")
    assert read_secret("SERVICE_TOKEN").reveal() == "from-environment"
    assert read_secret("SERVICE_TOKEN", str(tmp_path / "token")).reveal() == "from-file"


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot be read"), ("", "is empty"), ("two\nlines", "not allowed in a header"), ("é", "not allowed")],
)
def test_unusable_file_is_refused(content, message, monkeypatch, tmp_path):
    monkeypatch.setenv("SERVICE_TOKEN", "from-environment")
    if content is not None:
        (tmp_path / "token").write_text(content, encoding="utf-8")
    with pytest.raises(RefusedError, match=message):
        read_secret("SERVICE_TOKEN", str(tmp_path / "token"))


def test_missing_variable_is_named(monkeypatch):
    monkeypatch.delenv("SERVICE_TOKEN", raising=False)
    with pytest.raises(RefusedError, match="set the environment variable SERVICE_TOKEN"):
        read_secret("SERVICE_TOKEN")
