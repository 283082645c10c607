"""The command ``lightbox``: every command and group of commands, by name."""

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

import typer
from typer.core import TyperGroup

from cli.logs import logs
from cli.output import CliError, err
from cli.stack import down, restart, status, up

# What lives in a module of its own, which is imported only when it is asked for: module, and its function or group.
_ELSEWHERE: Final = {
    "demo": ("cli.demo", "demo"),
    "send": ("cli.send", "send"),
    "tenant": ("cli.tenants", "app"),
    "user": ("cli.users", "app"),
    "client": ("cli.clients", "app"),
    "edge": ("cli.edges", "app"),
    "node": ("cli.nodes", "app"),
    "events": ("cli.events", "app"),
    "quarantine": ("cli.quarantine", "app"),
    "reconcile": ("cli.reconcile", "reconcile"),
    "reindex": ("cli.reindex", "reindex"),
}


class LazyGroup(TyperGroup):
    """A group that imports a command's module when the command is used, so that ``lightbox status`` starts fast."""

    def list_commands(self, ctx: Any) -> list[str]:
        """All names, those of ``_ELSEWHERE`` last."""
        return [*super().list_commands(ctx), *(n for n, (module, _) in _ELSEWHERE.items() if find_spec(module))]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of this name, or nothing."""
        module, attribute = _ELSEWHERE.get(cmd_name, ("", ""))
        if not module or not find_spec(module):
            return super().get_command(ctx, cmd_name)
        found = getattr(import_module(module), attribute)
        if isinstance(found, typer.Typer):
            command: Any = typer.main.get_group(found)
        else:
            single = typer.Typer(add_completion=False)
            single.command(cmd_name)(found)
            command = typer.main.get_command(single)
        command.name = cmd_name
        return command


app = typer.Typer(
    name="lightbox",
    cls=LazyGroup,
    help="Lightbox, a PACS for many clinics: run it on this machine, fill it and look after it.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _name, _function in (("up", up), ("down", down), ("status", status), ("logs", logs), ("restart", restart)):
    app.command(_name)(_function)


def main() -> None:
    """Runs the command line. An error is one line that says what is wrong and one that says what helps."""
    try:
        app()
    except CliError as error:
        err.print(f"[bold red]error[/] {error.what}", highlight=False, soft_wrap=True)
        if error.help_text:
            err.print(f"      {error.help_text}", style="dim", highlight=False, soft_wrap=True)
        sys.exit(error.code)


if __name__ == "__main__":
    main()
