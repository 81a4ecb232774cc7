"""A folder for tests of a ledger without a storage."""

import secrets


class NewFolder:
    """A ports.Folder, by default of a folder that was never used; has_them: whether it contains uploads."""

    def __init__(self, identity: str | None = None, *, has_them: bool = False) -> None:
        self.text = identity
        self.has_them = has_them

    async def identity(self) -> str | None:
        return self.text

    async def claim(self) -> str:
        self.text = self.text or secrets.token_hex(16)
        return self.text

    async def has_uploads(self) -> bool:
        return self.has_them
