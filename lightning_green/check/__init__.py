"""``lightning-green check``: whether a training script resumes exactly, found with a short version of the training.

The script runs once without a stop and once stopped and resumed at several boundaries, each time with a probe in its
Trainer that writes a trace. The traces are compared.
"""

from lightning_green.check.check import Check
from lightning_green.check.differences import Difference
from lightning_green.check.result import CheckFailedError, CheckResult, Verdict

__all__ = ["Check", "CheckFailedError", "CheckResult", "Difference", "Verdict"]
