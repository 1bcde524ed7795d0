"""Faults that several grid services can have, by name."""

from datetime import timedelta

HTML = b"<html><head><title>Authorization Required</title></head><body>nginx</body></html>"
SKEW = timedelta(hours=2)
STATUS: dict[str, tuple[int, bytes, dict[str, str]]] = {
    "401_empty": (401, b"", {}),
    "401_html": (401, HTML, {}),
    "403": (403, b'{"error":"Invalid scope"}', {}),
    "404": (404, b'{"error":"No recent data for zone \\"DE\\""}', {}),
    "429_retry_after": (429, b"", {"Retry-After": "120"}),
    "429": (429, b"", {}),
    "500": (500, b'{"error":{"code":"500 Internal Server Error","message":"string"}}', {}),
    "502_html": (502, HTML, {}),
}

NO_ANSWER = (
    *STATUS,
    "truncated",
    "slow_drip",
    "drip_headers",
    "silent",
    "reset",
    "redirect_away",
    "not_json",
    "html_200",
    "empty",
    "too_large",
    "deep",
    "null",
    "wrong_zone",
)
"""Faults without a usable answer."""

ODD_ANSWER = ("duplicates", "unordered", "null_newest", "short_forecast", "local_times")
"""Faults with an unusual, valid answer."""

FAULTS = (*NO_ANSWER, *ODD_ANSWER, "sandbox", "clock_skew")
