"""A self-contained HTML page about one run or several."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from lightning_green.report import text
from lightning_green.report.chart_data import chart_data
from lightning_green.report.run_report import RunReport
from lightning_green.report.statements import model_card, sci_statement
from lightning_green.utilities.durations import format_duration
from lightning_green.utilities.quantities import format_energy, format_grams, format_money
from lightning_green.utilities.text import printable
from lightning_green.utilities.version import package_version

if TYPE_CHECKING:
    from jinja2 import Environment

_ASSETS = "assets"


def html_page(
    reports: Sequence[RunReport],
    compressions: Mapping[str, Mapping[str, Any]] | None = None,
    title: str | None = None,
    refresh_seconds: int | None = None,
) -> str:
    """Return a page that needs no network: its charts, styles and data are in the file.

    Args:
        reports: The runs; several are compared.
        compressions: Reports of ``lightning-green compress`` by name.
        title: Title of the page; by default the name of the run.
        refresh_seconds: Time after which a browser loads the page again; None for never.

    Raises:
        ValueError: If ``reports`` and ``compressions`` are empty.

    Examples:
        ```python
        page = html_page([read_run_report(Path("lightning_green_runs/train-1a2b3c4d"))])
        Path("report.html").write_text(page)
        ```

    """
    compressions = compressions or {}
    if not reports and not compressions:
        raise ValueError("`reports` should contain at least one run, got none.")
    names = [*(one.name for one in reports), *compressions]
    data = {"runs": [chart_data(one) for one in reports]}
    page = _environment().get_template("report.html.j2")
    return page.render(
        title=printable(title or (names[0] if len(names) == 1 else f"{len(names)} runs")),
        reports=reports,
        compressions=compressions,
        text=text,
        model_card=model_card,
        sci_statement=sci_statement,
        energy=format_energy,
        grams=format_grams,
        money=format_money,
        duration=lambda hours: format_duration(hours * 3600),
        printable=printable,
        data=_script_json(data),
        refresh_seconds=refresh_seconds,
        version=package_version(),
        written=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        styles=_asset("report.css"),
        script=_asset("report.js"),
        charts=_asset("echarts.common.min.js") if reports else "",
    )


def _script_json(value: Any) -> str:
    """Return JSON that cannot end the script element that contains it."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"), default=str)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


@cache
def _asset(name: str) -> str:
    return (files("lightning_green.report") / _ASSETS / name).read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    from jinja2 import (
        DictLoader,
        Environment,
        StrictUndefined,
        select_autoescape,
    )  # takes 0.1 s, and no training uses it

    loader = DictLoader({"report.html.j2": _asset("report.html.j2")})
    return Environment(
        loader=loader,
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
