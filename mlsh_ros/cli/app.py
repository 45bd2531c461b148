"""The command tree of `mlsh`."""

from __future__ import annotations

from typing import Any

import typer
from rich.markup import escape

from mlsh_ros.cli import (
    check,
    check_robot,
    demo,
    evaluate,
    export,
    finetune,
    gap,
    new_robot,
    play,
    plot,
    replay,
    summary,
    sweep,
    sysid,
    train,
    transfer,
    up,
)

app = typer.Typer(
    name="mlsh",
    help="Hierarchical skills: trained in simulation, run in ROS 2.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(train.train)
app.command()(summary.summary)
app.command()(sweep.sweep)
app.command()(export.export)
app.command()(check.check)
app.command("new-robot")(new_robot.new_robot)
app.command("check-robot")(check_robot.check_robot)
app.command()(evaluate.evaluate)
app.command()(finetune.finetune)
app.command()(transfer.transfer)
app.command()(up.up)
app.command()(replay.replay)
app.command()(gap.gap)
app.command()(sysid.sysid)
app.command()(play.play)
app.command()(plot.plot)
app.command()(demo.demo)


def command() -> Any:
    """The tree, ready to be called with a command line. A bracket in a help text is a bracket."""
    tree: Any = typer.main.get_command(app)
    for each in tree.commands.values():
        for described in (each, *each.params):
            described.help = escape(described.help or "")
    return tree
