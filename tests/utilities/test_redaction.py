"""Command lines without their secrets."""

import re

import pytest

from lightning_green.utilities.redaction import redact, redact_words, shell_line


@pytest.fixture(autouse=True)
def own_key(tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTNING_GREEN_CACHE_DIR", str(tmp_path / "cache"))


SECRET = "s3cr3t-VALUE"


@pytest.mark.parametrize(
    "words",
    [
        [f"--token={SECRET}"],
        ["--token", SECRET],
        ["--api-key", SECRET],
        ["--api_key", SECRET],
        ["-password", SECRET],
        [f"--wandb.api_key={SECRET}"],
        [f"+logger.wandb.api_key={SECRET}"],
        [f"HF_TOKEN={SECRET}"],
        [f"WANDB_API_KEY={SECRET}"],
        [f"AWS_SECRET_ACCESS_KEY={SECRET}"],
        [f"--hf-token='{SECRET}'"],
        [f"https://user:{SECRET}@host/x"],
        [f"--index=https://{SECRET}@host/x"],
        [f"postgresql://me:{SECRET}@db/x"],
        ["bash", "-c", f"HF_TOKEN={SECRET} python train.py"],
        ["bash", "-c", f"python train.py --password {SECRET} --lr 1"],
        ["bash", "-c", f"curl -H 'Authorization: Bearer {SECRET}' https://x"],
        ["bash", "-c", "wandb login " + SECRET * 4],
        ["--secret", SECRET],
        ["--PASSWORD", SECRET],
    ],
)
def test_secret_is_replaced(words):
    redacted = redact_words(["python", "train.py", *words])
    assert SECRET not in " ".join(redacted)
    assert re.search(r"<secret [0-9a-f]{8}>", " ".join(redacted))
    assert redacted[:2] == ["python", "train.py"]
    assert redact_words(redacted) == redacted, "a redacted line is not changed"


@pytest.mark.parametrize("shape", ["hf_" + "a" * 30, "ghp_" + "a" * 36, "sk-" + "a" * 40, "AKIA" + "A" * 16])
def test_token_of_a_known_form_is_replaced_wherever_it_is(shape):
    assert shape not in redact(f"x={shape}")
    assert shape not in redact_words(["train.py", shape])[1]


@pytest.mark.parametrize(
    "words",
    [
        ["--max-tokens", "512"],
        ["--max_tokens=512"],
        ["--tokenizer=bert"],
        ["--tokenizer", "bert"],
        ["--num-tokens-per-batch", "1"],
        ["--pad-token", "<pad>"],
        ["--eos_token=</s>"],
        ["--model.mask_token=[MASK]"],
        ["--keys", "a"],
        ["--key=a"],
        ["--commit", "0123456789abcdef0123456789abcdef01234567"],
        ["--author", "me"],
        ["--data=s3://bucket/x@2"],
        ["user@host"],
        ["--use-auth", "--lr", "1"],
        ["--secretary=a"],
        ["--monkey-patch=1"],
        ["https://host:8080/a@b"],
    ],
)
def test_other_arguments_are_unchanged(words):
    assert redact_words(["train.py", *words]) == ["train.py", *words]


def test_comparison_notices_another_secret():
    one, same, other = (redact_words(["t.py", "--token", word]) for word in ("a1b2", "a1b2", "a1b3"))
    assert one == same
    assert one != other


def test_without_a_key_the_secret_is_still_replaced(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LIGHTNING_GREEN_CACHE_DIR", str(tmp_path / "file" / "none"))
    assert redact_words(["--token", SECRET]) == ["--token", "<secret>"]


def test_line_for_people_says_what_to_fill_in():
    assert shell_line(["t.py", "--lr", "1"]) == "t.py --lr 1"
    assert shell_line(["t.py", "--token", SECRET]) == "t.py --token '<secret>'  # replace <secret>"
