"""The command line: one command a module. Every setting is an option of the commands that open the ledger."""

import sys

import click

from ..settings import WrongSetting
from .recover import recover
from .serve import serve
from .tidy import tidy
from .upload import upload


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="tusd_py", prog_name="tusd-py")
def cli() -> None:
    """A tus 1.0 resumable-upload server."""


for command in (serve, recover, tidy, upload):
    cli.add_command(command)


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
