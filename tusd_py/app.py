"""The application under its documented name: `uvicorn --factory tusd_py.app:create_app`."""

from .border.app import create_app

__all__ = ["create_app"]
