"""Texts and numbers without parts that change at every start: time stamps, random identifiers, temporary paths."""

from __future__ import annotations

import datetime
import functools
import os
import re
import tempfile
import time

TIME, IDENTIFIER, _TEMPORARY_PATH = "<time>", "<id>", "<temporary path>"

_RECENT_SECONDS = 400 * 86400
_EPOCH_UNITS = (1.0, 1e3, 1e6, 1e9)  # seconds, ms, us, ns


def _any_of(*patterns: str) -> str:
    return "(?:" + "|".join(patterns) + ")"


_YEAR, _MONTH, _DAY = r"(?:19|20)\d\d", r"(?:0[1-9]|1[0-2])", r"(?:0[1-9]|[12]\d|3[01])"
_DATE = _any_of(rf"{_YEAR}([-/._]){_MONTH}\1{_DAY}", rf"{_DAY}([-/._]){_DAY}\2{_YEAR}")
_HOUR, _MINUTE = r"(?:[01]\d|2[0-3])", r"[0-5]\d"
_ZONE = r"(?:\s?(?:Z\b|UTC\b|[+-]\d\d:?\d\d(?!\d)))?"
_FRACTION = r"(?:[.,]\d{1,9}|[_-]\d{6}(?!\d))?"
_COLON_TIME = rf"{_HOUR}:{_MINUTE}:{_MINUTE}{_FRACTION}{_ZONE}"
_SEPARATED_TIME = rf"{_HOUR}[:.h_-]{_MINUTE}(?:[:.m_-]{_MINUTE}s?)?{_FRACTION}{_ZONE}"
_COMPACT_TIME = rf"{_HOUR}{_MINUTE}(?:{_MINUTE})?{_FRACTION}{_ZONE}"
_ANY_TIME = _any_of(_SEPARATED_TIME, _COMPACT_TIME)
_MONTH_NAME = _any_of(
    "Jan(?:uary)?", "Feb(?:ruary)?", "Mar(?:ch)?", "Apr(?:il)?", "May", "June?", "July?", "Aug(?:ust)?",
    "Sept?(?:ember)?", "Oct(?:ober)?", "Nov(?:ember)?", "Dec(?:ember)?",
)  # fmt: skip
_WEEKDAY = r"(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*,? )?"
_TIME_PATTERN = re.compile(
    "|".join(
        (
            # 2026-11-26, 2026/11/26, 26.11.2026, each with a time or without
            rf"(?<!\d){_DATE}(?:(?:[T_/.-]| at |, | ){_ANY_TIME})?(?!\d)",
            # 20261126_124459, 20261126124459, 261126_124459
            rf"(?<![\d.]){_YEAR}{_MONTH}{_DAY}[T_. -]?{_ANY_TIME}(?!\d)",
            rf"(?<![\d.])\d\d{_MONTH}{_DAY}[T_-]{_HOUR}{_MINUTE}{_MINUTE}(?!\d)",
            # Nov26_12-44-59, Thu Nov 26 12:44:59 2026
            rf"(?<![A-Za-z]){_WEEKDAY}{_MONTH_NAME}[ _.-]{{0,2}}\d{{1,2}}(?:,? {_YEAR})?[ _T-]{_SEPARATED_TIME}"
            rf"(?: {_YEAR})?(?!\d)",
            # 26 Nov 2026, 26-Nov-2026 12:44
            rf"(?<![\dA-Za-z]){_WEEKDAY}\d{{1,2}}[ _-]?{_MONTH_NAME}[ _-]?{_YEAR}(?:[ _T-]{_SEPARATED_TIME})?(?!\d)",
            rf"(?<![\d:.]){_COLON_TIME}(?![\d:])",
            # 20261126, 1795697099, 1795697099.123: only if recent
            rf"(?<![\d.])(?P<date>{_YEAR}{_MONTH}{_DAY})(?!\d)",
            r"(?<![\d.])(?P<epoch>\d{10}(?:\.\d+)?|\d{13}|\d{16}|\d{19})(?!\d)",
        )
    )
)
_SHORT_DATE, _FULL_YEAR = re.compile(r"\d{6}[T_-]"), re.compile(_YEAR)
_ADDRESS_PATTERN = re.compile(r" at 0x[0-9a-fA-F]+")
_IDENTIFIER_PATTERN = re.compile(
    r"(?<![0-9a-z])"
    + _any_of(
        r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
        r"(?:0x)?(?=\d*[a-f])(?=[a-f]*\d)[0-9a-f]{8,}",
    )
    + r"(?![0-9a-z])",
    re.IGNORECASE,
)


def is_recent(number: float) -> bool:
    """Return whether a number is an epoch time, in seconds down to nanoseconds, within 400 days of now."""
    now = time.time()
    return any(abs(number / unit - now) <= _RECENT_SECONDS for unit in _EPOCH_UNITS)


def is_recent_on_timer(number: float) -> bool:
    """Return whether a number was read in the last hour from ``time.perf_counter`` or ``time.monotonic``.

    Timer values have nine decimals, and settings have few.
    """
    return number > 60 and 0 <= time.monotonic() - number <= 3600 and round(number, 4) != number


def stable_text(text: str) -> str:
    """Return a text without recent time stamps, random identifiers, temporary paths and memory addresses.

    Examples:
        >>> stable_text("runs/resnet50 of 2015-01-01 in /tmp/abc")
        'runs/resnet50 of 2015-01-01 in <temporary path>'

    """
    if os.sep in text:
        for pattern in _temporary_patterns():
            text = pattern.sub(_TEMPORARY_PATH, text)
    if not any(character.isdigit() for character in text):
        return text
    text = _ADDRESS_PATTERN.sub("", text)
    text = _IDENTIFIER_PATTERN.sub(IDENTIFIER, text)
    return _TIME_PATTERN.sub(_replace_time, text)


def _replace_time(match: re.Match[str]) -> str:
    if match["date"]:
        try:
            date = datetime.datetime.strptime(match["date"], "%Y%m%d").replace(tzinfo=datetime.timezone.utc)
        except ValueError:  # February 30
            return match[0]
        return TIME if is_recent(date.timestamp()) else match[0]
    if match["epoch"]:
        return TIME if is_recent(float(match["epoch"])) else match[0]
    year = None if _SHORT_DATE.match(match[0]) else _FULL_YEAR.search(match[0])
    return TIME if year is None or _is_recent_year(int(year[0])) else match[0]


def _is_recent_year(year: int) -> bool:
    """Return whether a date may be a time stamp of this training; ``2015-01-01`` is a setting."""
    return abs(year - datetime.datetime.fromtimestamp(time.time()).year) <= 1


def _temporary_patterns() -> list[re.Pattern[str]]:
    try:
        directory = tempfile.gettempdir()
    except OSError:  # no directory is writable
        directory = "/tmp"  # noqa: S108 - nothing is written there
    return _patterns_below(directory, os.getcwd())


@functools.lru_cache
def _patterns_below(directory: str, working_directory: str) -> list[re.Pattern[str]]:
    names = {directory, os.path.realpath(directory), "/tmp", "/var/tmp"}  # noqa: S108 - nothing is written there
    names -= {working_directory, os.path.realpath(working_directory), "/", "."}  # Python's last resort
    return [
        re.compile(rf"(?<![\w./-]){re.escape(name)}(?:/[^\s'\",;:()\[\]{{}}]*)?(?![\w.-])")
        for name in sorted(names, key=len, reverse=True)
    ]
