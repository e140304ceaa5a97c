"""A command group that imports a command only when it runs, so that `gemma4vec --help` stays fast."""

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group


def load(target: str, name: str) -> Any:
    """Import the command at `module:attribute`: a typer-annotated function, or a `typer.Typer` of subcommands."""
    module_name, attribute = target.split(":")
    found = getattr(import_module(module_name), attribute)
    if isinstance(found, typer.Typer):
        group = get_group(found)
        group.name = name
        return group
    single = typer.Typer(add_completion=False)
    single.command(name)(found)
    return get_command(single)


def lazy_group(commands: dict[str, tuple[str, str]]) -> type[TyperGroup]:
    """A group class for `typer.Typer(cls=...)`.

    Args:
        commands: name -> (`module:attribute`, help line). The help line is here so that `--help` imports nothing.
    """

    class LazyGroup(TyperGroup):
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            for name, (_, line) in commands.items():
                self.add_command(TyperCommand(name=name, help=line))

        def resolve_command(self, ctx: Any, args: list[str]) -> tuple[Any, Any, list[str]]:
            # The parent class reports unknown commands with a suggestion; the command that it returns is a placeholder.
            name, _, rest = super().resolve_command(ctx, args)
            return name, load(commands[name][0], name) if name else None, rest

    return LazyGroup
