"""The command line. Every setting of settings.py is an option of `serve`, with its environment variable."""

import errno
import mimetypes
import secrets
import sys
from collections.abc import Awaitable, Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .settings import ENV_PREFIX, Settings, WrongSetting, build, flag, parse

if TYPE_CHECKING:  # a command imports what it needs
    from .wiring import Parts

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


def moment(context: click.Context, parameter: click.Parameter, text: str | None) -> float | None:
    """Return the time that a text names, in Unix seconds; without a zone it is UTC."""
    from datetime import UTC, datetime

    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        pass
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} must be a date, a date and time (ISO 8601), or Unix seconds") from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


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
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--no-callbacks", is_flag=True, help="Send no event for uploads that are found finished.")
@click.option(
    "--callbacks-since",
    metavar="TIME",
    callback=moment,
    help="Send events only for uploads finished since then: 2026-11-20, 2026-11-20T10:00:00Z, or Unix seconds.",
)
def recover(dry_run: bool, no_callbacks: bool, callbacks_since: float | None, **options: Any) -> None:
    """Make the records of uploads again from the upload folder, after the ledger lost them.

    What can be resumed resumes at a safe offset; the event of what is finished is sent again under the same id. A
    record that is behind its files is brought forward, any other is left alone: it may run twice, and beside live
    servers. A folder that tusd's file store left is taken over.
    """
    from .upkeep import recover

    def is_wanted(finished_at: float) -> bool:
        return not no_callbacks and (callbacks_since is None or finished_at >= callbacks_since)

    def say(text: str) -> None:
        click.echo(text, err=True)

    async def run(parts: "Parts") -> None:
        listing = await parts.storage.listing()
        hidden = not sys.stderr.isatty()
        with click.progressbar(length=len(listing.ids), label="uploads", file=sys.stderr, hidden=hidden) as bar:
            found = await recover(
                parts.engine, listing.ids, callback=is_wanted, dry_run=dry_run, step=lambda: bar.update(1), say=say
            )
        for name in listing.others:
            say(f"{name}: its name is not that of an upload")
        if not dry_run:
            await parts.ledger.recovered()
        dry = " (dry run)" if dry_run else ""
        for what, count in sorted(found.items(), key=lambda item: str(item[0])):
            click.echo(f"{count} {what.value if what else 'are no uploads'}{dry}")
        if listing.others:
            click.echo(f"{len(listing.others)} have no name of an upload{dry}")

    run_with_parts(options, run)


@cli.command()
@settings_options
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
def tidy(dry_run: bool, **options: Any) -> None:
    """Remove the files that crashes left of uploads that never were or are gone.

    The server does it by itself (--tidy-interval). Only what is provably a file of this server is ever removed.
    """
    from .upkeep import tidy

    async def run(parts: "Parts") -> None:
        tidied = await tidy(parts.ledger, parts.storage, dry_run=dry_run)
        for upload_id in tidied.removed:
            click.echo(f"{upload_id} {'would be removed' if dry_run else 'removed'}")
        click.echo(f"{len(tidied.removed)} removed{' (dry run)' if dry_run else ''}")
        if tidied.unrecorded:
            click.echo(f"{tidied.unrecorded} have no record; see `tusd-py recover --dry-run`")

    run_with_parts(options, run)


def run_with_parts(options: dict[str, Any], run: "Callable[[Parts], Awaitable[None]]") -> None:
    """Run a command on the ledger and the folder that the options name."""
    import asyncio

    from .ports import WrongLedger
    from .protocol.refusals import Refusal
    from .wiring import open_parts

    async def opened(settings: Settings) -> None:
        async with open_parts(settings) as parts:
            await parts.ledger.bind()
            await run(parts)

    try:
        asyncio.run(opened(settings_of(options)))
    except Refusal as exc:
        raise click.ClickException(exc.detail) from exc
    except (WrongLedger, OSError) as exc:
        raise click.ClickException(str(exc)) from exc


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
