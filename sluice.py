"""The command line: one command or small app per package, imported only when it is used.

`sluice gateway` never loads torch, `sluice train` never loads the control plane.
"""

import importlib
from typing import Any

import typer
from typer.core import TyperGroup

COMMANDS = {
    "up": "rollout.up:up",
    "train": "trainer.cli:train",
    "export": "exporter.cli:export",
    "verify": "exporter.cli:verify",
    "releases": "rollout.cli:releases",
    "plan": "rollout.plan_cli:plan",
    "rollout": "rollout.cli:rollout",
    "rollback": "rollout.cli:roll_back",
    "history": "rollout.cli:history_of_all",
    "doctor": "rollout.doctor:doctor",
    "gateway": "gateway.cli:gateway",
    "control": "rollout.cli:control",
    "load": "loadtests.cli:load",
    "demo": "loadtests.demo.cli:demo",
}
"""Command name to the function, or typer app, that carries it out."""


class LazyGroup(TyperGroup):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        try:
            target = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as exc:
            if (exc.name or "").split(".")[0] in ("gateway", "rollout", "trainer", "exporter", "loadtests"):
                raise
            raise SystemExit(f"error: `sluice {cmd_name}` needs the package {exc.name!r}: run `make setup`") from exc
        if isinstance(target, typer.Typer):
            command: Any = typer.main.get_command(target)
        else:
            app = typer.Typer(add_completion=False, rich_markup_mode="rich")
            app.command(cmd_name)(target)
            command = typer.main.get_command(app)
        command.name = cmd_name
        return command


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    add_completion=False,
    help="Sluice puts new models into production without anyone noticing. Start with `sluice up`, or `make demo`.",
)


@app.callback()
def _root() -> None:
    """Sluice puts new models into production without anyone noticing. Start with `sluice up`, or `make demo`."""


def main() -> None:
    app(prog_name="sluice")


if __name__ == "__main__":
    main()
