"""tusd-py upload."""

import mimetypes
import sys
from collections.abc import Callable
from pathlib import Path

import click


def pairs(separator: str) -> Callable[[click.Context, click.Parameter, tuple[str, ...]], dict[str, str]]:
    """Return a click callback that turns NAME<separator>VALUE texts into a dict."""

    def split(context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]) -> dict[str, str]:
        for text in texts:
            if separator not in text:
                raise click.BadParameter(f"{text!r} must be {parameter.metavar}")
        parts = (text.partition(separator) for text in texts)
        return {name.strip(): value.strip() for name, _, value in parts}

    return split


@click.command()
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
        from ..client import Job, run
    except ImportError as exc:
        raise click.UsageError(f'upload needs tuspy: pip install "tusd_py[client]" ({exc.name} is missing)') from exc
    told = {"filename": file.name, "filetype": mimetypes.guess_type(file.name)[0]}
    metadata = {name: text for name, text in told.items() if text} | metadata
    sys.exit(run(Job(file, url, metadata, headers, chunk_size, give_up_after), quiet=quiet))
