"""The command ``lightbox``: every command and group of commands, by name."""

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Final

import typer
from click.exceptions import Abort

from cli.logs import logs
from cli.output import CliError, err
from cli.stack import down, restart, status, up

# Commands that live in modules of their own: name, module, function.
_COMMANDS: Final = (
    ("demo", "cli.demo", "demo"),
    ("send", "cli.send", "send"),
    ("reindex", "cli.reindex", "reindex"),
)
_GROUPS: Final = (
    ("tenant", "cli.tenants"),
    ("user", "cli.users"),
    ("client", "cli.clients"),
    ("edge", "cli.edges"),
    ("events", "cli.events"),
)

app = typer.Typer(
    name="lightbox",
    help="Lightbox, a PACS for many clinics: run it on this machine, fill it and look after it.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _register() -> None:
    """Adds all commands in the order in which people meet them."""
    for name, function in (("up", up), ("down", down), ("status", status), ("logs", logs), ("restart", restart)):
        app.command(name)(function)
    for name, module, attribute in _COMMANDS:
        if find_spec(module):
            app.command(name)(getattr(import_module(module), attribute))
    for name, module in _GROUPS:
        if find_spec(module):
            app.add_typer(import_module(module).app, name=name)


def main() -> None:
    """Runs the command line. An error is one line that says what is wrong and one that says what helps."""
    _register()
    try:
        code = app(standalone_mode=False)
    except CliError as error:
        err.print(f"[bold red]error[/] {error.what}", highlight=False, soft_wrap=True)
        if error.help_text:
            err.print(f"      {error.help_text}", style="dim", highlight=False, soft_wrap=True)
        sys.exit(error.code)
    except typer.Exit as leave:
        sys.exit(leave.exit_code)
    except (KeyboardInterrupt, Abort):
        err.print("interrupted")
        sys.exit(130)
    except Exception as error:
        if not hasattr(error, "show"):
            raise
        error.show()
        sys.exit(getattr(error, "exit_code", 2))
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
