"""The events of a run that draws constant power, written one after another."""

from datetime import datetime, timedelta, timezone

from lightning_green.grid.series import Series

START = datetime(2024, 5, 2, tzinfo=timezone.utc)
WATTS = 300.0
KIND = "average/lifecycle"


class Book:
    """The events of a run that draws 300 W. As in a ledger, energy starts at 0 in every process."""

    def __init__(self, intensities, quality="measured"):
        """Take hourly intensities from ``START`` on."""
        self.series = Series([(START + timedelta(hours=n), value) for n, value in enumerate(intensities)])
        self.quality, self.records = quality, []
        self.at, self.attempt, self.joules, self.last = START, 0, 0.0, START
        self.now = {"state": "running", "phase": "training", "power": 1.0, "speed": 1.0}

    def write(self, event, **fields):
        intensity = self.series.mean(self.last, self.at)
        self.records.append(
            {
                "event": event,
                "node": "a",
                "attempt": self.attempt,
                "time_utc": self.at.isoformat(),
                "joules": {"gpu": {"value": self.joules, "quality": self.quality}},
                "intensity": None if intensity is None else {"value": intensity, "kind": KIND},
                **self.now,
                **fields,
            }
        )
        self.last = self.at

    def start(self, startup_hours=0.0):
        self.attempt, self.joules, self.last = self.attempt + 1, 0.0, self.at
        self.at += timedelta(hours=startup_hours)
        self.joules = WATTS * startup_hours * 3600
        self.now |= {"state": "running", "phase": "training"}
        self.write("started", startup_s=startup_hours * 3600)

    def work(self, hours, watts=WATTS, event="sample", **then):
        """Let time pass in the current state, write an event, and enter the next state."""
        self.at += timedelta(hours=hours)
        self.joules += watts * hours * 3600
        self.now |= then
        self.write(event)

    def mean(self, start, end):
        return self.series.mean(*(datetime.fromtimestamp(at, timezone.utc) for at in (start, end)))


def left_and_came_back(event, hours_out=5.0):
    """Return a book with an hour of work, ``event``, some hours of nothing, and another hour of work."""
    book = Book([100.0] * 12)
    book.start(startup_hours=0.1)
    book.work(1.0, event="sample")
    if event is not None:
        book.work(0.0, event=event)
        book.work(0.0, event="sample")  # the last look at the totals, as a process that leaves takes it
    book.at += timedelta(hours=hours_out)
    book.start(startup_hours=0.2)
    book.work(1.0, event="finished")
    return book
