"""The Lua scripts of the Redis ledger."""

import hashlib
from importlib.resources import files


def scripts() -> dict[str, tuple[str, str]]:
    """Return the scripts by name: text and SHA-1."""
    folder = files(__package__).joinpath("lua")
    texts = {file.name.removesuffix(".lua"): file.read_text() for file in folder.iterdir()}
    prelude = texts.pop("prelude")
    texts = {name: text if name == "bind" else prelude + text for name, text in texts.items()}
    return {
        name: (text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()) for name, text in texts.items()
    }
