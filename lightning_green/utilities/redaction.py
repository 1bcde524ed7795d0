"""Secrets in command lines, which are stored and printed without them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from lightning_green.utilities.user_key import keyed_hash

_PURPOSE = "secret"
_DIGITS = 8

_WORDS = r"(?:token|password|passwd|passphrase|secret|credentials?|apikey)"
_PAIRS = r"(?:api|access|secret|private|account|auth|storage)[-_.]?key"
_NAME = rf"(?:[A-Za-z0-9_.+-]*?(?:(?<![A-Za-z0-9])|(?<=[-_.]))(?:{_PAIRS}|{_WORDS}))"

_VOCABULARY = re.compile(
    r"(?i)(?:^|[-_.])(?:pad|eos|bos|unk|sep|cls|mask|stop|start|end|image|audio|special|prompt|per|next|new)"
    r"[-_.]?token\b"
)
"""Tokens of a language model, such as ``--pad-token``, which are no secrets."""

_ASSIGNMENT = re.compile(rf"(?i)(?P<before>(?<![\w./-]){_NAME}=(?P<quote>['\"]?))(?P<secret>[^\s'\"]+)")
_OPTION = re.compile(rf"(?i)-{{1,2}}{_NAME}")
_OPTION_IN_TEXT = re.compile(
    rf"(?i)(?P<before>(?<!\S)-{{1,2}}{_NAME}\s+(?P<quote>['\"]?))(?P<secret>[^\s'\"-][^\s'\"]*)"
)
_HEADER = re.compile(
    r"(?i)(?P<before>\b(?:authorization|auth-token|x-api-key)\s*[:=]\s*(?:(?:bearer|basic|token)\s+)?)"
    r"(?P<secret>[^\s'\"]+)"
)
_URL = re.compile(r"(?P<before>\b[A-Za-z][A-Za-z0-9+.-]*://(?:[^\s/:@'\"]*:)?)(?P<secret>[^\s/@'\"]+)(?=@)")
_LOGIN = re.compile(r"(?P<before>\bwandb\s+login\s+(?:--\S+\s+)*)(?P<secret>[A-Za-z0-9_-]{20,})")
_SHAPES = re.compile(
    r"(?P<before>(?<![A-Za-z0-9]))(?P<secret>hf_[A-Za-z0-9]{16,}|gh[opsu]_[A-Za-z0-9]{16,}|github_pat_\w{16,}"
    r"|glpat-[\w-]{16,}|sk-[\w-]{20,}|AKIA[0-9A-Z]{16}|xox[abpr]-[\w-]{10,}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)"
)
_MARK = re.compile(r"<secret(?: [0-9a-f]{8})?>")


def redact_words(words: Sequence[str]) -> list[str]:
    """Return the words of a command line with each secret replaced by ``<secret 0a1b2c3d>``.

    Secrets are values of options and variables with names such as ``--token``, ``--api-key`` and ``HF_TOKEN``, the
    password of an address, and strings in the form of well-known tokens. The digits are a hash that only this user can
    compute, so two command lines can be compared without their secrets.

    Examples:
        >>> [re.sub(r" [0-9a-f]{8}", "", word) for word in redact_words(["train.py", "--api-key", "k", "--lr=0.1"])]
        ['train.py', '--api-key', '<secret>', '--lr=0.1']

    """
    redacted, follows = [], False
    for word in words:
        redacted.append(_mark(word) if follows and not word.startswith("--") else redact(word))
        follows = _OPTION.fullmatch(word) is not None and _VOCABULARY.search(word) is None
    return redacted


def redact(text: str) -> str:
    """Return a text with each secret in it replaced; see ``redact_words``."""
    for pattern in (_HEADER, _URL, _ASSIGNMENT, _LOGIN, _SHAPES):
        text = pattern.sub(_replace, text)
    return _OPTION_IN_TEXT.sub(_replace, text) if " " in text else text


def shell_line(words: Sequence[str]) -> str:
    """Return a command line for people, without its secrets. A comment names what to fill in."""
    shown = [_MARK.sub("<secret>", word) for word in redact_words(words)]
    line = shlex.join(shown)
    return f"{line}  # replace <secret>" if any("<secret>" in word for word in shown) else line


def _replace(match: re.Match[str]) -> str:
    if _VOCABULARY.search(match["before"]):
        return match[0]
    return match["before"] + _mark(match["secret"])


def _mark(secret: str) -> str:
    if _MARK.fullmatch(secret) or secret.startswith("<secret"):
        return secret
    digest = keyed_hash(_PURPOSE, secret)
    return "<secret>" if digest is None else f"<secret {digest[:_DIGITS]}>"
