"""`tusd-py recover`: the records again from the volume, where a ledger lost them."""

from collections import Counter
from collections.abc import Callable, Sequence

from .engine import Engine, Recovered


async def recover(
    engine: Engine, ids: Sequence[str], *, dry_run: bool, step: Callable[[], object], say: Callable[[str], object]
) -> Counter[Recovered | None]:
    """Go over the uploads that there are files of; return how many became what, None for those that do not tell.

    It is idempotent and can run beside live replicas: a record that is there is left as it is. step is called after
    each, say with a line for each that needs a person. Raises Unavailable.
    """
    found: Counter[Recovered | None] = Counter()
    for upload_id in ids:
        try:
            found[await engine.recover(upload_id, dry_run=dry_run)] += 1
        except ValueError as exc:
            say(f"{upload_id}: {exc}")
            found[None] += 1
        step()
    return found
