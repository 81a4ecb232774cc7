"""tusd-py serve."""

import errno
import secrets
from pathlib import Path

import click

from ..settings import Settings, WrongSetting
from .options import settings_options


@click.command()
@settings_options
def serve(**options: object) -> None:
    """Run the server."""
    from ..serve import CannotServe, serve

    settings = Settings.of(options)
    check_writable(settings.upload_dir)
    try:
        serve(settings)
    except CannotServe as exc:
        raise WrongSetting(str(exc)) from exc


def check_writable(folder: Path) -> None:
    """Make the folder if there is none. Raises WrongSetting when no file can be made in it."""
    probe = folder / f".tusd_py.writable-{secrets.token_hex(8)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as exc:
        # On a full volume, uploads can still be asked for and deleted.
        if exc.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise WrongSetting(f"--upload-dir is {folder}, it must be a writable folder ({exc.strerror})") from exc
