"""tusd-py recover."""

import sys
from typing import TYPE_CHECKING

import click

from .options import run_with_parts, settings_options

if TYPE_CHECKING:
    from ..wiring import Parts


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


@click.command()
@settings_options
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--no-callbacks", is_flag=True, help="Send no event for uploads that are found finished.")
@click.option(
    "--callbacks-since",
    metavar="TIME",
    callback=moment,
    help="Send events only for uploads finished since then: 2026-11-20, 2026-11-20T10:00:00Z, or Unix seconds.",
)
def recover(dry_run: bool, no_callbacks: bool, callbacks_since: float | None, **options: object) -> None:
    """Make the records of uploads again from the upload folder, after the ledger lost them.

    What can be resumed resumes at a safe offset; the event of what is finished is sent again under the same id. A
    record that is behind its files is brought forward, any other is left alone: it may run twice, and beside live
    servers. A folder that tusd's file store left is taken over.
    """
    from ..upkeep import recover

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
