"""Budgets in kWh, gCO2e or money: the limits, the use of a run by its ledger, and a directory that runs share."""

from lightning_green.budget.directory import BudgetDirectory, BudgetError, read_budget
from lightning_green.budget.limits import Limits
from lightning_green.budget.status import BudgetStatus
from lightning_green.budget.usage import Usage

__all__ = ["BudgetDirectory", "BudgetError", "BudgetStatus", "Limits", "Usage", "read_budget"]
