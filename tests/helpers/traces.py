"""Carbon intensities that make a planner do what a test is about."""

from datetime import datetime, timedelta, timezone

START = datetime(2024, 5, 2, tzinfo=timezone.utc)
CLOCK = "simulated:start=2024-05-02T00:00:00+00:00,batch=600,checkpoint=60,restart=300"


def write_trace(path, hours):
    """Write an hourly trace that begins at ``START``; return its path as a string."""
    rows = [f"{(START + timedelta(hours=hour)).isoformat()},{value}" for hour, value in enumerate(hours)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("datetime,carbon_intensity\n" + "\n".join(rows) + "\n")
    return str(path)


def two_windows():
    """Return 48 hours with clean ones from 4 to 8 and from 14 to 19: eight hours of work leave and return twice."""
    clean = {*range(4, 8), *range(14, 19)}
    return [50 if hour in clean else 600 for hour in range(48)]
