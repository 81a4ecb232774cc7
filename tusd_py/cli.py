"""The command line. Every setting of settings.py is an option of `serve`, with its environment variable."""

import errno
import mimetypes
import secrets
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from .settings import ENV_PREFIX, Settings, WrongSetting, build, flag, parse

Command = Callable[..., Any]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="tusd_py", prog_name="tusd-py")
def cli() -> None:
    """A tus 1.0 resumable-upload server."""


def settings_options(command: Command) -> Command:
    """Give a command one option for each setting."""
    for one in reversed(fields(Settings)):
        command = click.option(
            flag(one.name),
            one.name,
            envvar=ENV_PREFIX + one.name.upper(),
            metavar=one.metadata["metavar"],
            multiple=isinstance(one.default, tuple),
            default=None,
            help=f"{one.metadata['help']} [{ENV_PREFIX}{one.name.upper()}; default: {build(one.default) or 'none'}]",
        )(command)
    return command


def settings_of(options: dict[str, Any]) -> Settings:
    """Return the settings that the options tell. Raises WrongSetting."""
    defaults: dict[str, Any] = {one.name: one.default for one in fields(Settings)}
    values: dict[str, Any] = {
        name: value if isinstance(value, tuple) else parse(name, defaults[name], value)
        for name, value in options.items()
        if value not in (None, ())
    }
    return Settings(**values)


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


@cli.command()
@settings_options
def serve(**options: Any) -> None:
    """Run the server."""
    from .serve import CannotServe, serve

    settings = settings_of(options)
    check_writable(settings.upload_dir)
    try:
        serve(settings)
    except CannotServe as exc:
        raise WrongSetting(str(exc)) from exc


@cli.command()
@settings_options
@click.option("--dry-run", is_flag=True, help="Only tell what would be done.")
def recover(dry_run: bool, **options: Any) -> None:
    """Make the records of uploads again from the upload folder, after the ledger lost them.

    What can be resumed resumes at a safe offset, what is complete is told again under the same id. A record that is
    there is left alone: it may run twice, and beside live servers. A folder that tusd's file store left is taken over.
    """
    import asyncio

    from .protocol.refusals import Unavailable
    from .recover import recover
    from .wiring import open_engine

    def say(text: str) -> None:
        click.echo(text, err=True)

    async def run(settings: Settings) -> None:
        async with open_engine(settings) as (engine, _):
            ids = await engine.ids()
            hidden = not sys.stderr.isatty()
            with click.progressbar(length=len(ids), label="uploads", file=sys.stderr, hidden=hidden) as bar:
                found = await recover(engine, ids, dry_run=dry_run, step=lambda: bar.update(1), say=say)
        for what, count in sorted(found.items(), key=lambda item: str(item[0])):
            click.echo(f"{count} {what.value if what else 'could not be read'}{' (dry run)' if dry_run else ''}")

    try:
        asyncio.run(run(settings_of(options)))
    except Unavailable as exc:
        raise click.ClickException(exc.detail) from exc


def pairs(separator: str) -> Callable[[click.Context, click.Parameter, tuple[str, ...]], dict[str, str]]:
    """Return a click callback that turns NAME<separator>VALUE texts into a dict."""

    def split(context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]) -> dict[str, str]:
        for text in texts:
            if separator not in text:
                raise click.BadParameter(f"{text!r} must be {parameter.metavar}")
        parts = (text.partition(separator) for text in texts)
        return {name.strip(): value.strip() for name, _, value in parts}

    return split


@cli.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--to", "url", required=True, metavar="URL", help="The server's creation URL, http://HOST:PORT/files/.")
@click.option("--metadata", multiple=True, metavar="KEY=VALUE", callback=pairs("="), help="May repeat.")
@click.option("--header", "headers", multiple=True, metavar="NAME:VALUE", callback=pairs(":"), help="May repeat.")
@click.option("--chunk-size", default=8388608, metavar="BYTES", show_default=True, help="Bytes a request, at least 1.",
              type=click.IntRange(min=1))  # fmt: skip
@click.option("--give-up-after", default=300.0, metavar="SECONDS", show_default=True, help="How long without progress.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
def upload(
    file: Path,
    url: str,
    metadata: dict[str, str],
    headers: dict[str, str],
    chunk_size: int,
    give_up_after: float,
    quiet: bool,
) -> None:
    """Upload FILE to a tus server and print its URL.

    Resumes by itself after a cut, and after Ctrl-C by the same command. Exit status: 0 uploaded, 1 refused by the
    server, 2 wrong usage, 75 gave up for now, 130 interrupted.
    """
    try:
        from .client import Job, run
    except ImportError as exc:
        raise click.UsageError(f'upload needs tuspy: pip install "tusd_py[client]" ({exc.name} is missing)') from exc
    told = {"filename": file.name, "filetype": mimetypes.guess_type(file.name)[0]}
    metadata = {name: text for name, text in told.items() if text} | metadata
    sys.exit(run(Job(file, url, metadata, headers, chunk_size, give_up_after), quiet=quiet))


def main() -> None:
    """Run the command line; a wrong value ends it with one line and exit status 2."""
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as exc:
        click.echo(exc.format_message())
        sys.exit(2)
    except (click.ClickException, WrongSetting) as exc:
        text = exc.format_message() if isinstance(exc, click.ClickException) else str(exc)
        click.echo(f"tusd-py: {text}", err=True)
        sys.exit(2)
    except click.Abort:
        sys.exit(130)
