"""Values in the JSON bodies of services."""

import pytest

from lightning_green.utilities.http.bodies import prometheus_series
from lightning_green.utilities.http.errors import UnreadableError


def body(result, status="success"):
    return {"status": status, "data": {"resultType": "vector", "result": result}}


def test_query_without_a_series_has_no_series():
    assert prometheus_series(body([])) is None


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (3, "does not report success"),
        ({"status": "success", "data": 3}, "does not report success"),
        (body([], status="error"), "does not report success"),
        (body({}), "without a list of series"),
        (body([3]), "without a list of series"),
        (body([{}, {}]), "returns 2 series"),
    ],
)
def test_unusable_answer_is_refused(answer, message):
    with pytest.raises(UnreadableError, match=message):
        prometheus_series(answer)
