"""Folders for ledgers that are tested without a storage."""

import secrets


class NewFolder:
    """ports.Folder of a folder that was never used; has_them says whether it looks as if uploads were in it."""

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
