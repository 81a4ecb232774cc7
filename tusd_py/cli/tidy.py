"""tusd-py tidy."""

from typing import TYPE_CHECKING

import click

from .options import run_with_parts, settings_options

if TYPE_CHECKING:
    from ..wiring import Parts


@click.command()
@settings_options
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
def tidy(dry_run: bool, **options: object) -> None:
    """Remove the files that crashes left of uploads that never were or are gone.

    The server does it by itself (--tidy-interval). Only what is provably a file of this server is ever removed.
    """
    from ..upkeep import tidy

    async def run(parts: "Parts") -> None:
        tidied = await tidy(parts.ledger, parts.storage, dry_run=dry_run)
        for upload_id in tidied.removed:
            click.echo(f"{upload_id} {'would be removed' if dry_run else 'removed'}")
        click.echo(f"{len(tidied.removed)} removed{' (dry run)' if dry_run else ''}")
        if tidied.unrecorded:
            click.echo(f"{tidied.unrecorded} have no record; see `tusd-py recover --dry-run`")

    run_with_parts(options, run)
