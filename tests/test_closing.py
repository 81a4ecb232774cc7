"""Closing a ledger ends what it runs in the background, whatever that does at the moment."""

import asyncio
from pathlib import Path

import pytest

from tests.support.folder import NewFolder
from tusd_py.ledger.sqlite import SqliteLedger

pytestmark = pytest.mark.anyio


async def test_a_cancellation_that_meets_a_signal_is_not_lost(tmp_path: Path) -> None:
    """asyncio.wait_for() returns instead, before Python 3.12, when what it waits for is there at the same moment."""
    for n in range(100):
        ledger = SqliteLedger(tmp_path / f"{n}.sqlite3")
        await ledger.open(NewFolder())
        unwatch = ledger.watch("a", lambda signal: None)
        await ledger.bind()  # wakes the listener
        unwatch()

        async with asyncio.timeout(10):
            await ledger.close()
