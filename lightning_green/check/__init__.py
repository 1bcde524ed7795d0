"""``lightning-green check``: whether a training script resumes exactly, found with a short version of the training.

The script runs once without a stop and once stopped and resumed at several boundaries, each time with a probe in its
Trainer that writes a trace. The traces are compared.
"""

from lightning_green.check.check import Check, CheckFailedError, CheckResult, Verdict
from lightning_green.check.differences import Difference

__all__ = ["Check", "CheckFailedError", "CheckResult", "Difference", "Verdict"]
