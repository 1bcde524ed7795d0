"""``lightning-green check``: whether a training script resumes exactly, found by running it in small.

The script runs once without a stop and once stopped and resumed at several boundaries, each time with a probe in its
Trainer that writes a trace. The traces are compared.
"""

from lightning_green.check.check import Check, CheckResult, Verdict
from lightning_green.check.differences import Difference

__all__ = ["Check", "CheckResult", "Difference", "Verdict"]
