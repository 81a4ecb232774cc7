"""What the commands share: the settings as options, and a run on the ledger and the folder that they name."""

from collections.abc import Awaitable, Callable
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import click

from ..settings import ENV_PREFIX, Settings, build, flag, parse

if TYPE_CHECKING:  # a command imports what it needs
    from ..wiring import Parts

Command = Callable[..., Any]


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


def run_with_parts(options: dict[str, Any], run: "Callable[[Parts], Awaitable[None]]") -> None:
    """Run a command on the ledger and the folder that the options name."""
    import asyncio

    from ..ports import WrongLedger
    from ..protocol.refusals import Refusal
    from ..wiring import open_parts

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
