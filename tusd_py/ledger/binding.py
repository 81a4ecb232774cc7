"""Which folder a ledger belongs to. Both hold the folder's identity, so that neither is mistaken for another.

An unmounted volume looks like an empty folder, and another deployment's Redis like an empty one: without the identity,
"there is no such upload" would make every client start again.
"""

from ..ports import Folder, WrongLedger

SCHEMA = 2  # of the records; 1 had no version, no owner, no outcome, and no identity


async def folder_for(owner: str | None, folder: Folder) -> str:
    """Return the identity that ledger and folder share; owner is the one that the ledger has, None without one.

    A folder without an identity gets one, unless the ledger belongs to a folder already. Raises WrongLedger,
    Unavailable.
    """
    identity = await folder.identity()
    if identity is None:
        if owner is not None:
            raise WrongLedger(
                f"the upload folder has no identity, and the ledger belongs to the folder {owner}: mount the right"
                f" volume; if this is the right folder, and only its file .tusd_py.folder was lost, write {owner} into"
                " that file"
            )
        identity = await folder.claim()
    if owner not in (None, identity):
        raise WrongLedger(
            f"the ledger belongs to the folder {owner}, the upload folder is {identity}: mount the right volume, or"
            " give this folder a ledger of its own (--redis-prefix)"
        )
    return identity


def check_schema(version: int) -> None:
    """Raise WrongLedger when a newer server made the records."""
    if version > SCHEMA:
        raise WrongLedger(
            f"the ledger has records of version {version}, this server knows up to {SCHEMA}: use the newer server again"
        )
