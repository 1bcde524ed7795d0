"""What a machine can measure, throttle and reach, with a remedy for each limitation. Nothing is changed."""

from lightning_green.doctor.examination import examine
from lightning_green.doctor.finding import Diagnosis, Finding, Level

__all__ = ["Diagnosis", "Finding", "Level", "examine"]
