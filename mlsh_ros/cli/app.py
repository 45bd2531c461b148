"""The command tree of `mlsh`; every subcommand is registered here.

Afterwards `python -m tests.support.reference` writes docs/reference/cli.md again.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import typer
from rich.markup import escape
from typer.core import TyperGroup

from mlsh_ros.cli import (
    check_bundle,
    check_robot,
    compare_runs,
    demo,
    eval_transfer,
    evaluate,
    export,
    finetune,
    gap,
    import_skill,
    launch,
    migrate,
    new_robot,
    play,
    plot,
    replay,
    sweep,
    sysid,
    train,
)
from mlsh_ros.cli.renamed import COMMANDS, OPTIONS
from sim.errors import unknown

# click's, whether typer brings a click of its own (0.26 and later) or not.
UsageError: Any = typer.BadParameter.__mro__[1]


class Commands(TyperGroup):
    """The commands; a former name or option is refused with its new name."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Returns the command with the name of the first word."""
        if args and args[0] in COMMANDS:
            ctx.fail(str(unknown("command", args[0], self.commands, COMMANDS)))
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Parse the words after the command and run it."""
        try:
            return super().invoke(ctx)
        except UsageError as error:
            command = getattr(error.ctx, "info_name", "")
            option, renamed = getattr(error, "option_name", ""), OPTIONS.get(command, {})
            if option in renamed:
                params = error.ctx.command.params
                known = [name for each in params for name in each.opts if name.startswith("--")]
                ctx.fail(str(unknown("option", option, known, renamed)))
            raise


app = typer.Typer(
    cls=Commands,
    name="mlsh",
    help="Hierarchical skills: trained in simulation, run in ROS 2.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(train.train)
app.command("compare-runs")(compare_runs.compare_runs)
app.command()(sweep.sweep)
app.command()(export.export)
app.command("import-skill")(import_skill.import_skill)
app.command("check-bundle")(check_bundle.check_bundle)
app.command()(migrate.migrate)
app.command("new-robot")(new_robot.new_robot)
app.command("check-robot")(check_robot.check_robot)
app.command()(evaluate.evaluate)
app.command()(finetune.finetune)
app.command("eval-transfer")(eval_transfer.eval_transfer)
app.command()(launch.launch)
app.command()(replay.replay)
app.command()(gap.gap)
app.command()(sysid.sysid)
app.command()(play.play)
app.command()(plot.plot)
app.command()(demo.demo)


@cache
def command() -> Any:
    """Returns the command tree, ready to be called; brackets in help texts are not markup."""
    tree: Any = typer.main.get_command(app)
    for each in tree.commands.values():
        for described in (each, *each.params):
            described.help = escape(described.help or "")
    return tree
