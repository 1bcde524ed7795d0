"""The ledger as text, figures and tables."""
