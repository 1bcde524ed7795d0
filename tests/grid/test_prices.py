"""Prices from a number or a file."""

import pytest

from lightning_green.grid.prices import build_prices
from lightning_green.planning.prices import PriceSeries


def write(tmp_path, *rows):
    path = tmp_path / "prices.csv"
    path.write_text("\n".join(["datetime,price", *rows]) + "\n")
    return path


@pytest.mark.parametrize("value", [0.32, "0.32", -0.05, 0])
def test_number_is_a_constant_price(value):
    assert build_prices(value).constant == float(value)


def test_file_may_have_negative_empty_and_missing_prices(tmp_path):
    path = write(
        tmp_path, "2024-05-01T00:00Z,-0.1", "2024-05-01T01:00Z,", "2024-05-01T02:00Z,0.2", "2024-05-01T05:00Z,0.3"
    )
    prices = build_prices(str(path))
    assert prices.source == "prices prices.csv"
    assert prices.prices.tolist() == [-0.1, 0.2, 0.3]
    assert ((prices.ends - prices.starts)[:2] == 3600.0).all()  # a price is valid for an hour at most


def test_offsets_are_converted_to_utc(tmp_path):
    assert build_prices(write(tmp_path, "2024-05-01T02:00+02:00,0.1")).starts.tolist() == [1714521600.0]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["2024-05-01T00:00,0.1"], "line 2: the time .* has no time zone"),
        (["2024-05-01T01:00Z,0.1", "2024-05-01T00:00Z,0.1"], "line 3: .* earlier"),
        (["2024-05-01T01:00Z,0.1", "2024-05-01T01:00Z,0.1"], "line 3: .* twice"),
        (["2024-05-01T01:00Z,free"], "line 2: the price should be a number or empty, got 'free'"),
        (["2024-05-01T01:00Z,inf"], "the price should be a number"),
        (["2024-05-01T01:00Z,"], "has no prices"),
        ([], "has no prices"),
    ],
)
def test_wrong_file_is_reported_with_its_line(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        build_prices(write(tmp_path, *rows))


def test_file_without_the_column_is_reported(tmp_path):
    path = tmp_path / "prices.csv"
    path.write_text("datetime,cost\n")
    with pytest.raises(ValueError, match="no column `price`; it has datetime, cost"):
        build_prices(path)


def test_other_values_are_refused():
    with pytest.raises(FileNotFoundError, match=r"a CSV file that exists, got '.*none.csv'"):
        build_prices("none.csv")
    with pytest.raises(TypeError, match="got True"):
        build_prices(True)
    with pytest.raises(ValueError, match="finite price"):
        build_prices("nan")


def test_series_is_returned_as_it_is():
    prices = PriceSeries(constant=0.1)
    assert build_prices(prices) is prices
