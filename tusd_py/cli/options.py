"""What the commands share: the settings as options, and a run on the ledger and the folder that they name."""

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..settings import LONGEST_S, SETTINGS, OneOf, Rule, Seconds, Setting, Settings, Texts, Whole, build, flag, variable

if TYPE_CHECKING:  # a command imports what it needs
    from ..wiring import Parts

Command = Callable[..., Any]
T = TypeVar("T")


def settings_options(command: Command) -> Command:
    """Give a command one option for each setting."""
    for name, setting in reversed(list(SETTINGS.items())):
        repeats = isinstance(setting.rule, Texts)
        command = click.option(
            flag(name),
            name,
            envvar=variable(name),
            show_envvar=True,
            metavar=setting.metavar,
            type=click_type(setting.rule),
            multiple=repeats,
            default=setting.default if repeats else build(setting.default),
            show_default=bool(setting.default) or setting.default == 0,
            callback=checked(setting),
            help=setting.help,
        )(command)
    return command


def click_type(rule: Rule[object]) -> click.ParamType[Any]:
    """Return the type of an option; click shows its range in the help."""
    match rule:
        case Whole(least, most):
            return click.IntRange(least, most)
        case Seconds(least, is_open):
            return click.FloatRange(least, LONGEST_S, min_open=is_open)
        case OneOf(words):
            return click.Choice(words)
    return click.STRING


def checked(setting: Setting[object]) -> Callable[[click.Context, click.Parameter, T], T]:
    """Return a click callback that applies the rule of a setting."""

    def check(context: click.Context, parameter: click.Parameter, value: T) -> T:
        fault = setting.fault(value)
        if fault:
            raise click.BadParameter(f"it {fault}")
        return value

    return check


def run_with_parts(options: Mapping[str, object], run: "Callable[[Parts], Awaitable[None]]") -> None:
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
        asyncio.run(opened(Settings.of(options)))
    except Refusal as exc:
        raise click.ClickException(exc.detail) from exc
    except (WrongLedger, OSError) as exc:
        raise click.ClickException(str(exc)) from exc
