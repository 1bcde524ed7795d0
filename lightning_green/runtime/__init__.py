"""Exact training state, the run ledger, the supervisor and the launchers."""
