"""The command ``lightning-green report``."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from lightning_green.cli.messages import fail, print_line
from lightning_green.grid.prices import build_prices
from lightning_green.ledger.ledger import ledger_files, read_ledger
from lightning_green.report.compression import read_compression
from lightning_green.report.cost import Rates
from lightning_green.report.formats import csv_text, json_record, markdown
from lightning_green.report.html import html_page
from lightning_green.report.live import LiveServer
from lightning_green.report.run_list import fast_reading, runs_of_command
from lightning_green.report.run_report import RunReport, read_run_report
from lightning_green.report.statements import model_card, sci_statement
from lightning_green.report.text import method_paragraph
from lightning_green.utilities.files import atomic_file
from lightning_green.utilities.text import printable

REFRESH_SECONDS = 10
COMPRESSION_FILE = "report.json"
LONGEST_CURRENCY = 12


class Format(str, Enum):
    """Formats of a report."""

    HTML = "html"
    MARKDOWN = "md"
    JSON = "json"
    CSV = "csv"
    PNG = "png"
    MODEL_CARD = "model-card"
    SCI = "sci"
    PAPER = "paper"


def report(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="RUN_DIR...", help="Run directories, and report.json files of `compress`."),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File to write. Default: report.html; text formats are printed."),
    ] = None,
    form: Annotated[
        Format, typer.Option("--format", help="Page, tables, picture, or statement for others.")
    ] = Format.HTML,
    title: Annotated[str | None, typer.Option(help="Title of the page. Default: the name of the run.")] = None,
    embodied: Annotated[
        float | None, typer.Option(min=0.0, help="Embodied emissions of the hardware to add to the SCI, in gCO2e.")
    ] = None,
    price: Annotated[
        str | None,
        typer.Option(help="Electricity price per kWh: a number, or a CSV file with the columns datetime and price."),
    ] = None,
    currency: Annotated[str, typer.Option(help="Currency of --price, such as EUR.")] = "",
    market_factor: Annotated[
        float | None,
        typer.Option(min=0.0, help="Emission factor of an electricity contract in gCO2e/kWh, for comparison."),
    ] = None,
    live: Annotated[
        bool, typer.Option("--live", help="Serve the page on 127.0.0.1 and refresh it until Ctrl-C.")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of --live; 0 for a free one.")] = 0,
) -> None:
    """Write one page about a run, or a comparison of several.

    The page needs no network. A run directory is only read; the training may still be running.

    Exit codes: 0 written; 2 wrong usage, or a directory that cannot be read.
    """
    rates = _rates(price, currency, market_factor)
    runs, compressions = _read_all(paths, rates)
    if live:
        if form is not Format.HTML or compressions or output is not None:
            fail("`--live` serves the page of run directories. Remove --format, --output and report.json files.")
        _serve(paths, title, port, rates)
        return
    if form is Format.HTML:
        _write(output or Path("report.html"), html_page(runs, compressions, title).encode())
    elif not runs:
        fail(f"`--format {form.value}` is about runs. Give at least one run directory.")
    elif form is Format.PNG:
        _write(output or Path("report.png"), _picture(runs))
    else:
        text = _text(form, runs, embodied)
        if output is None:
            typer.echo(text)
        else:
            _write(output, f"{text}\n".encode())


def _rates(price: str | None, currency: str, market_factor: float | None) -> Rates:
    if currency and price is None:
        fail("`--currency` is the currency of a price. Add --price.")
    if len(currency) > LONGEST_CURRENCY or printable(currency) != currency:
        fail(f"`--currency` should be a short name such as EUR, got {currency!r}.")
    try:
        return Rates(None if price is None else build_prices(price, "--price"), currency, market_factor)
    except OSError as error:
        fail(str(error) if error.strerror is None else f"{error.filename} cannot be read ({error.strerror}).")
    except ValueError as error:
        fail(str(error))


def _text(form: Format, runs: Sequence[RunReport], embodied: float | None) -> str:
    """Return a report in one of the text formats."""
    if form is Format.JSON:
        return json.dumps({"runs": [json_record(one) for one in runs]}, allow_nan=False)
    if form is Format.CSV:
        return csv_text(runs)
    if form is Format.MARKDOWN:
        return printable(markdown(runs))
    statements: dict[Format, Callable[[RunReport], str]] = {
        Format.MODEL_CARD: model_card,
        Format.PAPER: method_paragraph,
        Format.SCI: lambda one: sci_statement(one, embodied),
    }
    return printable("\n\n".join(statements[form](one) for one in runs))


def _read_all(paths: Sequence[Path], rates: Rates) -> tuple[list[RunReport], dict[str, dict[str, Any]]]:
    runs, compressions = list[RunReport](), dict[str, dict[str, Any]]()
    for path in paths:
        file = path if path.is_file() else path / COMPRESSION_FILE
        try:
            found = [] if path.is_file() else _runs_below(path, rates)
            if not found and file.is_file():
                compressions[file.resolve().parent.name] = read_compression(file)
        except (RuntimeError, ValueError) as error:  # another version, or damaged
            fail(str(error))
        except OSError as error:
            fail(f"{path} cannot be read ({error.strerror}).")
        if not found and not file.is_file():
            fail(
                f"{path} is not a run directory: it has no ledger. By default, runs are in lightning_green_runs/, "
                "and in lightning_green/ without the supervisor."
            )
        runs += found
    return runs, compressions


def _runs_below(path: Path, rates: Rates) -> list[RunReport]:
    """Return the reports of a run directory and of the runs that its command has started."""
    with fast_reading():
        runs = [(one, code) for one, code in runs_of_command(path.absolute()) if ledger_files(one)]
        return [read_run_report(one, code, rates) for one, code in runs]


def _picture(runs: Sequence[RunReport]) -> bytes:
    import io

    from lightning_green.report.timeline import timeline

    if len(runs) > 2:
        fail("`--format png` shows one run, or two of which the second is the reference. Use --format html for more.")
    try:
        events = [read_ledger(one.status.path) for one in runs]
        picture = timeline(events[0], events[1] if len(events) == 2 else None)
    except (ModuleNotFoundError, ValueError) as error:
        fail(str(error))
    buffer = io.BytesIO()
    picture.savefig(buffer, dpi=160)
    return buffer.getvalue()


def _serve(paths: Sequence[Path], title: str | None, port: int, rates: Rates) -> None:
    def page() -> str:
        return html_page([one for path in paths for one in _runs_below(path, rates)], None, title, REFRESH_SECONDS)

    try:
        server = LiveServer(page, port)
    except OSError as error:
        fail(f"Port {port} cannot be used ({error.strerror}). Choose another one with --port.")
    print_line(f"Serving {server.address} until Ctrl-C")
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print_line("Stopped")
    finally:
        server.server_close()


def _write(path: Path, content: bytes) -> None:
    try:
        with atomic_file(path) as file:
            file.write(content)
    except OSError as error:
        fail(f"{path} cannot be written ({error.strerror}). Choose another file with --output.")
    print_line(f"Wrote {path}")
