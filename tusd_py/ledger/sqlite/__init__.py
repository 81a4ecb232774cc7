"""The embedded ledger, for all processes of one host."""

from .ledger import SqliteLedger

__all__ = ["SqliteLedger"]
