"""A gap as one HTML file that needs nothing but a browser."""

from __future__ import annotations

import itertools
import math
from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from html import escape

from mlsh_ros.evaluation.report import PERCENT, SCRIPT, STYLE
from mlsh_ros.sim2real.gap.analysis import Gap
from mlsh_ros.sim2real.gap.closed_loop_return import interval
from mlsh_ros.sim2real.gap.measures import HORIZONS, SINCE, Measure
from mlsh_ros.sim2real.gap.plots import (
    EXPLAINED,
    ROBOT,
    SIM,
    draw_earned,
    draw_horizons,
    draw_range,
    draw_trace,
)

MILLI = 1e3
RANGES = 12  # elements in the drawing of the ranges
MORE_STYLE = """
ol.verdict { padding-left: 1.4rem; } ol.verdict li { margin-bottom: 0.6rem; }
ol.verdict b { font-weight: 600; } ol.verdict span { color: var(--quiet); font-size: 1rem; }
.notes { color: var(--quiet); font-size: 0.9rem; padding-left: 1.2rem; }
"""
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none';
 style-src 'unsafe-inline'; script-src 'sha256-{policy}'">
<title>{name}: gap</title><style>{style}</style></head>
<body><main><header><h1><small>Robot against simulation</small>{name}</h1>
<dl class="facts">{facts}</dl>{verdict}</header>
{body}
</main><script>{script}</script></body></html>
"""


@dataclass(frozen=True)
class Cell:
    """What stands in a table, and by what it is sorted."""

    text: str
    value: float | str


def render(gap: Gap) -> str:
    """The report as HTML; the same gap gives the same text."""
    facts = {
        "robot": gap.robot.name,
        "simulated in": gap.reality or "the nominal model",
        "recordings": len(gap.recordings),
        "compared": f"{gap.seconds:.0f} s in {gap.windows} windows",
        "ticks": gap.timing.ticks,
        "digest": gap.digest[:12] if gap.digest else "no bundle",
    }
    sections = [apart, looks, cost, when, horizon, inside, messages, choices]
    return PAGE.format(
        policy=b64encode(sha256(SCRIPT.encode()).digest()).decode(),
        style=STYLE + MORE_STYLE,
        script=SCRIPT,
        name=escape(gap.name),
        facts="".join(
            f"<div><dt>{k}</dt><dd>{escape(str(v))}</dd></div>" for k, v in facts.items()
        ),
        verdict=_verdict(gap),
        body="\n".join(section(gap) for section in sections),
    )


def _verdict(gap: Gap) -> str:
    if gap.findings:
        lines = "".join(
            f"<li><b>{escape(f.text)}</b><br><span>{escape(f.advice)}</span></li>"
            for f in gap.findings
        )
        text = f'<ol class="verdict">{lines}</ol>'
    else:
        text = f'<p class="verdict">{escape(gap.verdict[0])}</p>'
    if gap.notes:
        notes = "".join(f"<li>{escape(note)}</li>" for note in gap.notes)
        text += '<p class="caption">What could not be used or compared:</p>'
        text += f'<ul class="notes">{notes}</ul>'
    return text


# The sections -------------------------------------------------------------------------------


def apart(gap: Gap) -> str:
    """The table of all elements."""
    rows = []
    for m, after in zip(gap.measures, gap.explained, strict=True):
        e = m.element
        rows.append(
            [
                Cell(escape(e.name), e.name),
                Cell(f"{m.rmse:.3g} <small>{escape(e.unit)}</small>", m.rmse),
                _share(m.nrmse),
                _share(after.nrmse),
                _number(m.bias, "{:+.3g}"),
                _number(m.gain, "{:.3f}"),
                _number(m.gain_error, "{:.3f}"),
                _number(None if m.lag is None else MILLI * m.lag, "{:+.0f}"),
                _number(m.correlation, "{:.3f}"),
                Cell(f"{m.noise:.2g}", m.noise),
                Cell(f"{e.noise:g}", e.noise),
                _share(m.outliers, digits=1),
            ]
        )
    head = ["term", "rms error", "of movement", "explained", "bias", "gain", "±", "lag ms",
            "correlation", "noise", "declared", "jumps"]  # fmt: skip
    return _section(
        "How far apart are robot and simulation?",
        _table(head, rows),
        "The simulation replays the recorded commands in windows of two seconds, each from the "
        "recorded state. Of movement: rms error by the term's own standard deviation; explained: "
        "what is left of it with the causes named above. Positions are compared from where a "
        "window begins: a constant offset is not to be seen. Gain and lag: of recorded against "
        "simulated; a positive lag means that the robot is later.",
    )


def looks(gap: Gap) -> str:
    """Recorded and simulated over time."""
    units = {m.element.name: m.element.unit for m in gap.measures}
    panels = []
    for i, (name, (nominal, explained)) in enumerate(gap.traces.items()):
        drawing = draw_trace(
            nominal,
            explained if gap.causes else None,
            unit=units[name],
            key=f"looks-{i}",
            label=f"{name}, recorded and simulated over one window",
        )
        panels.append(_panel(name, drawing))
    keys = [("robot", ROBOT), ("simulation", SIM)]
    keys += [("simulation with the causes", EXPLAINED)] if gap.causes else []
    legend = "".join(f'<li><i style="background:{c}"></i>{n}</li>' for n, c in keys)
    return _section(
        "What does it look like?",
        f'<ul class="legend">{legend}</ul><div class="grid">{"".join(panels)}</div>',
        "The terms that differ most, each in the window in which it moves most.",
    )


def cost(gap: Gap) -> str:
    """Returns of robot and simulation."""
    title = "What does the gap cost?"
    if not gap.earned:
        return _section(title, "", "The recording does not tell which task counts: no returns.")
    panels, rows = [], []
    for i, line in enumerate(gap.earned):
        mean, low, high = line.difference
        drawing = draw_earned(
            line, key=f"cost-{i}", label=f"Returns of {line.task} on robot and in simulation"
        )
        panels.append(_panel(f"{line.task} (master {line.master})", drawing))
        rows.append(
            [
                Cell(escape(line.task), line.task),
                Cell(str(len(line.robot)), len(line.robot)),
                _mean(line.robot.mean(), interval(line.robot)),
                _mean(line.simulation.mean(), interval(line.simulation)),
                _mean(mean, (low, high)),
                _share(float(line.robot_success.mean())),
                _share(float(line.simulation_success.mean())),
            ]
        )
    head = ["task", "drives", "robot", "simulation", "difference", "robot success",
            "simulation success"]  # fmt: skip
    return _section(
        title,
        _table(head, rows) + f'<div class="grid">{"".join(panels)}</div>',
        "Returns by what the sensors say, with 95 % intervals over drives; the simulation starts "
        "where the robot did. A mark is a drive, a cross one that did not end solved; on the line "
        "both earn the same.",
    )


def when(gap: Gap) -> str:
    """By skill, and around switches."""
    skills = gap.skills
    edges = [*(f"{a}" if b - a == 1 else f"{a}-{b - 1}" for a, b in itertools.pairwise(SINCE)),
             f"{SINCE[-1]}+"]  # fmt: skip
    rows = [
        [
            Cell(escape(m.element.name), m.element.name),
            *map(_share, m.by_skill),
            *map(_share, m.by_since),
        ]
        for m in gap.measures
        if m.element.moves
    ]
    head = ["term", *skills, *(f"{edge} ticks" for edge in edges)]
    return _section(
        "In which skill, and how long after a switch?",
        _table(head, rows),
        "Rms error by the term's own movement, over the ticks of each skill, and by how many "
        "ticks ago the master switched; the last class holds ticks without a switch too.",
    )


def horizon(gap: Gap) -> str:
    """Prediction error over time."""
    title = "How fast does a prediction go wrong?"
    moving = sorted((m for m in gap.measures if m.element.moves), key=_far)
    if not moving:
        return _section(title, "", "Nothing moved.")
    drawing = draw_horizons(moving, key="horizon", label="Prediction error over time")
    return _section(
        title,
        f'<div class="grid">{_panel("error after a time", drawing)}</div>',
        f"Rms error one tick and up to {HORIZONS[-1]:g} s after the simulation's position was "
        "last that of the robot.",
    )


def inside(gap: Gap) -> str:
    """The range of training."""
    title = "Did the robot stay where the policy was trained?"
    if not gap.drifts:
        return _section(title, "", "There is no bundle: nobody says what was trained.")
    worst = sorted(gap.drifts, key=lambda d: (-d.outside, -d.farthest))[:RANGES]
    drawing = draw_range(worst, key="inside", label="Reach of each term beyond the training")
    rows = [
        [
            Cell(escape(d.name), d.name),
            Cell(f"{d.low:.3g}", d.low),
            Cell(f"{d.high:.3g}", d.high),
            _share(d.outside, digits=1),
            Cell(f"{d.farthest:.2f}", d.farthest),
        ]
        for d in sorted(gap.drifts, key=lambda d: -d.outside)
    ]
    efforts = [
        [
            Cell(escape(e.name), e.name),
            _share(e.saturated, digits=1),
            _share(e.rate_limited, digits=1),
        ]
        for e in gap.efforts
    ]
    table = _table(["element", "lowest", "highest", "outside", "farthest"], rows)
    if efforts:
        table += "<h3>Actions at their limits</h3>"
        table += _table(["action", "cut by its limit", "held by its rate limit"], efforts)
    return _section(
        title,
        f'<div class="grid">{_panel("farthest from the training", drawing)}</div>{table}',
        "Against the golden rows that the bundle carries, two standard deviations of its training "
        "on either side of the mean, and what the policy sees in simulation from the same starts, "
        "if the task is known. What no network reads is left out. Outside: share of the ticks "
        "that are further out than a tenth of the range; farthest: in ranges beyond it.",
    )


def messages(gap: Gap) -> str:
    """Topics and ticks."""
    rows = [
        [
            Cell(escape(c.topic), c.topic),
            Cell(str(c.messages), c.messages),
            Cell(f"{c.rate:.1f}", c.rate),
            _share(c.lost, digits=1),
            Cell(f"{MILLI * c.longest:.0f}", c.longest),
            _share(c.stale, digits=1),
            _number(None if c.age is None else MILLI * c.age, "{:.1f}"),
            _number(None if c.age_p99 is None else MILLI * c.age_p99, "{:.1f}"),
            Cell(str(c.refused), c.refused),
        ]
        for each in gap.channels
        for c in each
    ]
    head = ["topic", "messages", "per s", "lost", "longest gap ms", "stale", "age ms",
            "age p99 ms", "refused"]  # fmt: skip
    t = gap.timing
    words = [
        f"{t.ticks} ticks, {t.missed} left out, {t.late_decisions} decisions late",
        f"period {MILLI * t.period:.2f} ms, 1 % off by more than {MILLI * t.period_p99:.2f} ms",
    ]
    if t.lateness_p99 is not None and t.compute_p99 is not None:
        words.append(
            f"lateness p99 {MILLI * t.lateness_p99:.2f} ms, sensors to command p99 "
            f"{MILLI * t.compute_p99:.2f} ms"
        )
    return _section(
        "Do messages and ticks come on time?",
        _table(head, rows) + f"<p>{escape('; '.join(words))}.</p>",
        "Lost: messages that should have come at the topic's usual rate. Stale: samples that "
        "repeat a value from which the robot has moved on. Age: from stamp to arrival, if both "
        "clocks are the same.",
    )


def choices(gap: Gap) -> str:
    """The recording through the bundle."""
    title = "Do skills and master choose as the bundle says?"
    if not gap.replayed:
        return _section(title, "", "No trace of skill_node is recorded: this cannot be told.")
    counts = gap.to_dict()["replay"]
    rows = [[Cell(name.replace("_", " "), name), Cell(str(n), n)] for name, n in counts.items()]
    return _section(
        title,
        _table(["what", "number"], rows),
        "Every recorded tick and decision through the bundle once more, bit for bit; "
        "`mlsh replay` says where the first difference is.",
    )


# Pieces -------------------------------------------------------------------------------------


def _far(m: Measure) -> float:
    last = m.horizons[-1] / m.element.scale
    return 0.0 if math.isnan(last) else -last


def _section(title: str, body: str, caption: str) -> str:
    return f'<section><h2>{title}</h2>{body}<p class="caption">{escape(caption)}</p></section>'


def _panel(name: str, drawing: str) -> str:
    return f"<figure><figcaption>{escape(name)}</figcaption>{drawing}</figure>"


def _table(head: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """Sorted by a click on a heading; the first column names the row."""
    top = "".join(
        f'<th scope="col"{" class=text" if i == 0 else ""}>'
        f'<button type="button" data-column="{i}">{escape(name)}</button></th>'
        for i, name in enumerate(head)
    )
    body = "".join(f"<tr>{_row(row)}</tr>" for row in rows)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(head[0])}s"><table>'
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _row(cells: Sequence[Cell]) -> str:
    first, *others = cells
    name = (
        f'<th scope="row" class="text" data-value="{escape(str(first.value))}">{first.text}</th>'
    )
    return name + "".join(f'<td data-value="{c.value!r}">{c.text}</td>' for c in others)


def _share(share: float, digits: int = 0) -> Cell:
    if math.isnan(share):
        return Cell("n/a", -1.0)
    return Cell(f"{100 * share:.{digits}f}{PERCENT}", float(share))


def _number(value: float | None, form: str) -> Cell:
    return Cell("n/a", -1e9) if value is None else Cell(form.format(value), float(value))


def _mean(mean: float, between: tuple[float, float]) -> Cell:
    low, high = between
    told = "" if math.isnan(low) else f" <small>{low:.2f} to {high:.2f}</small>"
    return Cell(f"{mean:.2f}{told}", float(mean))
