"""The ledger in Redis, for any number of replicas."""

from .ledger import RedisLedger

__all__ = ["RedisLedger"]
