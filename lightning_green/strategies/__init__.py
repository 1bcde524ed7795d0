"""Strategies: what goes into ``Trainer(strategy=...)``; the control group of the ranks, and sharded model state.

An import registers ``Trainer(strategy="ddp_green")``.
"""

from lightning_green.strategies.green_ddp import GreenDDPStrategy

__all__ = ["GreenDDPStrategy"]
