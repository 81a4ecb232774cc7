"""A tus 1.0 resumable-upload server. create_app(Settings(...)) is an ASGI application; `tusd-py serve` runs it."""

from .app import create_app
from .settings import Settings

__all__ = ["Settings", "create_app"]
__version__ = "0.1.0"
