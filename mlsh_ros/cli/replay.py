"""mlsh replay: recompute a recording offline with its bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlsh_ros.cli.argument_order import check_order
from mlsh_ros.cli.console import say
from mlsh_ros.cli.options import BundleName
from policies.bundle.bundle import Bundle, load_bundle
from sim.errors import counted

if TYPE_CHECKING:
    from mlsh_ros.recording.bag_reader import Recording
    from mlsh_ros.recording.replay import Result

SHOWN = 3  # places named of a longer list
DIFFERENT, HOLES = 1, 3  # exit status; 2 is wrong usage, as everywhere


def replay(
    bag: Annotated[Path, typer.Argument(help="A recording: its MCAP file, or its folder.")],
    bundle: BundleName,
    master: Annotated[
        str | None,
        typer.Option(help="Master that selected the skills. Default: the recorded one."),
    ] = None,
    stochastic: Annotated[
        bool,
        typer.Option(
            "--stochastic",
            help="The master sampled its skills (greedy was false): compare logits only.",
        ),
    ] = False,
) -> int:
    """Compare every tick and decision of a recording with the output of the bundle.

    Status 0: all ticks are equal and the recording is complete. 1: there is a difference, and the
    first one is printed; or a file cannot be read. 2: wrong usage. 3: all comparable ticks are
    equal, but the recording has gaps or records that cannot be read, or is truncated, or another
    bundle ran in a part of it.
    """
    from mlsh_ros.recording.bag_reader import Recording
    from mlsh_ros.recording.replay import replay as compare

    check_order("mlsh replay RECORDING BUNDLE", recording=str(bag), bundle=bundle)
    recording, loaded = Recording(bag), load_bundle(bundle)
    _introduce(recording, loaded)
    result = compare(recording, loaded, master=master, stochastic=stochastic)
    if recording.cut:
        say(f"the recording is truncated ({recording.cut}); compared up to there")
    if recording.passed_over:
        say(f"the recording: {recording.unreadable[-1]}")
    whole = result.whole and not recording.unreadable
    _report(result, whole)
    if not result.equal:
        return DIFFERENT
    return 0 if whole else HOLES


def _introduce(recording: Recording, bundle: Bundle) -> None:
    ran = recording.about
    say(f"recording {recording.file}: bundle {ran.get('bundle')}, {ran.get('mode')}")
    digest, other = str(recording.manifest.get("digest")), bundle.manifest.digest
    if digest != other:
        say(
            f"another bundle ran: its digest is {digest[:16]}, that of {bundle.manifest.name} "
            f"is {other[:16]}; the recording is compared with {bundle.manifest.name}"
        )


def _report(result: Result, whole: bool) -> None:
    counts = ", ".join(
        counted(number, kind)
        for number, kind in (
            (result.sessions, "session"),
            (result.ticks, "tick"),
            (result.decisions, "decision"),
        )
    )
    equal = "all equal" if whole else "equal as far as recorded"
    say(f"{counts}, {equal}" if result.equal else counts)
    for kind, first, number, total in (
        ("", result.first_tick, result.different_ticks, result.ticks),
        ("of decisions ", result.first_decision, result.different_decisions, result.decisions),
    ):
        if first is not None:
            say(f"first difference {kind}({number} of {total}): {first}")
    _list("gaps between the ticks", result.missing)
    _list("ticks whose observation is of no recorded sensor message", result.unseen)
    _list(
        "values not compared, because what they depend on is not recorded or not certain",
        result.unjudged,
    )
    _list("changes to another bundle, which is not compared", result.other)
    _list("unreadable messages, left out", result.unread)


def _list(what: str, places: list[str]) -> None:
    if places:
        more = ", .." if len(places) > SHOWN else ""
        say(f"{len(places)} {what}: {', '.join(places[:SHOWN])}{more}")
