"""An evaluation as one HTML file that needs nothing but a browser."""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Iterable, Sequence
from hashlib import sha256
from html import escape
from pathlib import Path

import numpy as np

from mlsh_ros.evaluation.episode import Episode
from mlsh_ros.evaluation.report_plots import (
    draw_histogram,
    draw_returns,
    draw_route,
    draw_timeline,
    route_of,
    skill_colours,
    square,
)
from mlsh_ros.evaluation.scores import Evaluation, Line
from policies.bundle.bundle import Master
from sim.envs.reference_returns import Bounds
from sim.files.output import write_file
from sim.interface import Floats

SOLVED = 0.9  # normalised score from which the verdict calls a task solved
ROUTES = 6  # episodes drawn per task
ROWS = 16  # episodes in a timeline
MILLI = 1000.0
PERCENT = "\u00a0%"  # does not break from its number

STYLE = """
:root { color-scheme: light dark; --paper: #fdfdfc; --ink: #1c2026; --quiet: #5d646e;
  --line: #dcdfe3; --shade: #f3f4f5; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171b; --ink: #e3e6ea;
  --quiet: #9aa3ae; --line: #2f353d; --shade: #1c2026; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 1rem; letter-spacing: -0.01em; }
h1 small { display: block; font-size: 0.8rem; font-weight: 500; letter-spacing: 0.02em; }
h2 { font-size: 1.2rem; margin: 0 0 0.75rem; }
h3 { font-size: 0.95rem; font-weight: 600; margin: 1.25rem 0 0.5rem; }
section { border-top: 1px solid var(--line); margin-top: 2rem; padding-top: 1.5rem; }
small, .caption, dt, figcaption { color: var(--quiet); font-weight: 400; }
.verdict { font-size: 1.15rem; max-width: 46rem; margin: 1.25rem 0 0; }
.caption { font-size: 0.9rem; max-width: 52rem; margin: 0.75rem 0 0; }
.facts { display: flex; flex-wrap: wrap; gap: 0.5rem 2rem; margin: 0; }
.facts dt { font-size: 0.8rem; } .facts dd { margin: 0; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; max-width: 100%; overflow-wrap: normal; margin: 0 0 1rem; }
table { border-collapse: separate; border-spacing: 0; font-size: 0.9rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: 0.4rem 0.5rem; text-align: right; white-space: nowrap; font-weight: 400;
  border-bottom: 1px solid var(--line); }
thead th { color: var(--quiet); font-size: 0.8rem; } .text { text-align: left; }
.groups th { border: 0; padding-bottom: 0; text-align: center; }
tbody th { position: sticky; left: 0; background: var(--paper); font-weight: 600; }
.usage { background: linear-gradient(var(--tint), var(--tint)) left bottom /
  calc(var(--share) * 100%) 3px no-repeat; }
th button { all: unset; cursor: pointer; } th button:hover { color: var(--ink); }
th button:focus-visible, .scroll:focus-visible { outline: 2px solid #0072b2; }
[aria-sort=ascending] button::after { content: " \\2191"; }
[aria-sort=descending] button::after { content: " \\2193"; }
.legend { display: flex; flex-wrap: wrap; gap: 0.25rem 1.25rem; margin: 0 0 0.75rem; padding: 0;
  list-style: none; font-size: 0.9rem; }
.legend i { display: inline-block; width: 0.8em; height: 0.8em; border-radius: 2px;
  margin-right: 0.45em; }
.grid { display: grid; gap: 1.25rem 1.75rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 19rem), 1fr)); }
.small { gap: 0.75rem; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); }
figure { margin: 0; max-width: 30rem; } figcaption { font-size: 0.85rem; margin-bottom: 0.25rem; }
.grid:not(.small) figcaption { color: var(--ink); font-weight: 600; }
svg { display: block; width: 100%; height: auto; } svg text { font-family: inherit !important; }
summary { cursor: pointer; } summary h2 { display: inline; }
details[open] summary { margin-bottom: 1rem; }
pre { background: var(--shade); padding: 0.75rem 1rem; border-radius: 4px; font-size: 0.85rem; }
details .facts { margin-bottom: 1rem; }
@media (max-width: 600px) { main { padding: 1.5rem 1rem 3rem; }
  tbody th { white-space: normal; overflow-wrap: anywhere; min-width: 9rem; } }
"""
SCRIPT = """
document.querySelectorAll("th button").forEach((button) => button.addEventListener("click", () => {
  const head = button.parentElement, body = head.closest("table").tBodies[0];
  const down = head.getAttribute("aria-sort") === "ascending";
  const value = (row) => row.cells[button.dataset.column].dataset.value;
  const order = (a, b) => a - b || a.localeCompare(b, "en", { numeric: true });
  const rows = [...body.rows].sort((a, b) => order(value(a), value(b)));
  head.parentElement.querySelectorAll("th").forEach((th) => th.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  body.append(...(down ? rows.reverse() : rows));
}));
"""
# The policy makes the browser refuse any network access and any script but the one above.
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none';
 style-src 'unsafe-inline'; script-src 'sha256-{policy}'">
<title>{name}: evaluation</title><style>{style}</style></head>
<body><main><header><h1><small>Evaluation of the bundle</small>{name}</h1>
<dl class="facts">{facts}</dl><p class="verdict">{verdict}</p></header>
{body}
</main><script>{script}</script></body></html>
"""


def write_report(evaluation: Evaluation, path: Path, *, overwrite: bool = False) -> None:
    """Write the report; the same evaluation gives the same bytes.

    Raises:
        UserError: it could not be written, or a file that is there must stay.
    """
    # File names may hold lone surrogates, which UTF-8 cannot say.
    data = render(evaluation).encode("utf-8", "replace")
    write_file(path, data, overwrite=overwrite)


def render(evaluation: Evaluation) -> str:
    """The report as HTML."""
    manifest = evaluation.bundle.manifest
    facts = {
        **evaluation.measured.facts,
        "backend": evaluation.backend,
        "episodes": len(evaluation.episodes),
        "seed": evaluation.seed,
        "digest": manifest.digest[:12],
    }
    if evaluation.changes:
        facts["parameters"] = "; ".join(evaluation.changes)
    sections = [scores, where, how_good, who_drives, who_shares, on_time, provenance]
    return PAGE.format(
        policy=b64encode(sha256(SCRIPT.encode()).digest()).decode(),
        style=STYLE,
        script=SCRIPT,
        name=escape(manifest.name),
        facts="".join(
            f"<div><dt>{k}</dt><dd>{escape(str(v))}</dd></div>" for k, v in facts.items()
        ),
        verdict=escape(verdict(evaluation)),
        body="\n".join(section(evaluation) for section in sections),
    )


# The verdict --------------------------------------------------------------------------------


def verdict(evaluation: Evaluation) -> str:
    """The result in plain words."""
    lines = evaluation.lines
    if not lines:
        return "No episode was driven."
    found = [normalised(line.bounds, line.value) for line in lines]
    worst = min(normalised(line.bounds, line.worst) for line in lines)
    text = f"{_solved(found)}; the worst episode reached {_percent(worst)}."
    for family in sorted({line.task.partition("/")[0] for line in lines}):
        mine = [line for line in lines if line.task.partition("/")[0] == family]
        # On a single task a controller that ignores the task may well be the optimum.
        gain = sum(line.value - line.bounds.collapsed for line in mine)
        if len({line.task for line in mine}) > 1 and gain <= 0:
            text += f" Over {family} it is no better than a controller that ignores the task."
    for each in evaluation.sharing:
        if each.collapsed:
            text += f" On {each.family} {each.collapsed}."
    if faults := [fault for line in lines for fault in line.faults]:
        count = len(faults)
        text += f" skill_node would have stopped the robot in {count} episodes ({faults[0]})."
    return f"{text} {_lateness(evaluation)}"


def _solved(found: list[float]) -> str:
    low, high, count = _percent(min(found)), _percent(max(found)), len(found)
    share = low if low == high else f"{low.removesuffix(PERCENT)}-{high}"
    solved = sum(score >= SOLVED for score in found)
    if solved == count:
        who = {1: "The task is", 2: "Both tasks are"}.get(count, f"All {count} tasks are")
        return f"{who} solved at {share} of the optimum"
    if count == 1:
        return f"The task reaches {share} of the optimum"
    who = f"{solved or 'None'} of {count} tasks {'reach' if solved > 1 else 'reaches'}"
    return f"{who} {_percent(SOLVED)} of the optimum, the scores are {share}"


def _lateness(evaluation: Evaluation) -> str:
    ticks = evaluation.bundle.manifest.decision_ticks
    decisions = sum(math.ceil(len(e.skill) / ticks) for e in evaluation.episodes)
    late = sum(line.late for line in evaluation.lines)
    if late:
        return f"{late} of {decisions} decisions came late."
    if all(e.lateness is None for e in evaluation.episodes):
        return "Without a clock no decision can come late."
    return "No decision came late."


def normalised(bounds: Bounds, value: float) -> float:
    """As `Bounds.normalise`, and not a number where random is as good as the optimum."""
    return bounds.normalise(value) if bounds.optimum != bounds.random else math.nan


# The table ----------------------------------------------------------------------------------


def scores(evaluation: Evaluation) -> str:
    """One row per task; a click on a heading sorts."""
    timed = any(line.lateness_p99 is not None for line in evaluation.lines)
    skills = evaluation.bundle.manifest.skills
    groups = [("", 7), ("return of", 3), ("skill usage", len(skills)), ("", 2)]
    names = ["task", "master", "episodes", "score", "success", "return", "worst"]
    names += ["random", "collapsed", "optimum", *skills, "switches", "late"]
    if timed:
        groups.append(("ms per tick", 3))
        names += ["late p99", "compute p50", "compute p99"]
    top = "".join(f'<th colspan="{n}" scope="colgroup">{g}</th>' for g, n in groups)
    head = "".join(
        f'<th scope="col"{" class=text" if i < 2 else ""}>'
        f'<button type="button" data-column="{i}">{escape(name)}</button></th>'
        for i, name in enumerate(names)
    )
    rows = "\n".join(f"<tr>{_row(line, skills, timed)}</tr>" for line in evaluation.lines)
    return f"""<section><h2>How well does it do?</h2>
<div class="scroll" tabindex="0" role="region" aria-label="Scores per task"><table class="scores">
<thead><tr class="groups">{top}</tr><tr>{head}</tr></thead>
<tbody>{rows}</tbody></table></div>
<p class="caption">Score: 0 % is a random policy, 100 % the optimum. Collapsed is a good controller
that ignores the task: it may be perfect on one task, not on all. The three were simulated on these
very episodes. The optimum is a controller that knows the task, and no bound: a policy that does
better scores more than 100 %. Switches are per episode; late counts decisions in all
episodes.</p></section>"""


def _row(line: Line, skills: Sequence[str], timed: bool) -> str:
    score = normalised(line.bounds, line.value)
    cells = [
        f'<th scope="row" class="text" data-value="{escape(line.task)}">{escape(line.task)}</th>',
        f'<td class="text" data-value="{escape(line.master)}">{escape(line.master)}</td>',
        _cell(line.episodes, str(line.episodes)),
        _cell(score, f"<b>{_percent(score)}</b>"),
        _cell(line.success, _percent(line.success)),
        _cell(line.value, f"{line.value:.2f} <small>± {line.deviation:.2f}</small>"),
    ]
    limits = line.bounds.random, line.bounds.collapsed, line.bounds.optimum
    cells += [_cell(value, f"{value:.2f}") for value in (line.worst, *limits)]
    for share, colour in zip(line.usage, skill_colours(len(skills)), strict=True):
        style = f' class="usage" style="--share:{share:.4f};--tint:{colour}"'
        cells.append(_cell(share, _percent(share), style))
    cells += [_cell(line.switches, f"{line.switches:.1f}"), _cell(line.late, str(line.late))]
    if timed:
        times = line.lateness_p99, line.compute_p50, line.compute_p99
        cells += [_cell(-1, "n/a") if t is None else _cell(t, f"{MILLI * t:.2f}") for t in times]
    return "".join(cells)


def _cell(value: float, text: str, attributes: str = "") -> str:
    return f'<td data-value="{value!r}"{attributes}>{text}</td>'


def _percent(share: float) -> str:
    return "n/a" if math.isnan(share) else f"{round(100 * share)}{PERCENT}"


# The drawings -------------------------------------------------------------------------------


def where(evaluation: Evaluation) -> str:
    """Paths of some episodes, from the worst to the best."""
    title = "Where did it go?"
    manifest = evaluation.bundle.manifest
    terms = {term.name: term for term in manifest.interface.observation if term.observed}
    if "position" not in terms or terms["position"].size < 2:
        return _section(
            title, "", "The robot observes no position in the plane: no paths to draw."
        )
    parts, told = [], False
    for i, line in enumerate(evaluation.lines):
        ranked = sorted(_episodes(evaluation, line), key=lambda e: (e.value, e.number))
        picks = np.linspace(0, len(ranked) - 1, min(ROUTES, len(ranked))).round().astype(int)
        chosen = [ranked[pick] for pick in picks]
        routes = [route_of(e, evaluation.bundle, evaluation.seed) for e in chosen]
        told = told or any(route.counts is not None for route in routes)
        within = square(np.concatenate([route.corners for route in routes]))
        panels = []
        for j, (episode, route) in enumerate(zip(chosen, routes, strict=True)):
            text = f"episode {episode.number}, return {episode.value:.2f}"
            drawing = draw_route(
                route,
                skill_colours(len(manifest.skills)),
                within=within,
                unit=terms["position"].unit,
                decision_ticks=manifest.decision_ticks,
                key=f"where-{i}-{j}",
                label=f"Path of {line.task}, {text}",
            )
            panels.append(_panel(text, drawing))
        parts.append(f'<h3>{_name(line)}</h3><div class="grid small">{"".join(panels)}</div>')
    caption = (
        "Paths from the worst (left) to the best episode, coloured by the skill that drives. "
        "Ring: start. Dots: decisions. Square: end."
    )
    if told:
        caption += " The filled disc is the goal that counts, which the robot is not told."
    return _section(title, _legend(manifest.skills) + "".join(parts), caption)


def how_good(evaluation: Evaluation) -> str:
    """Returns of all episodes."""
    lines = evaluation.lines
    levels = [
        x for b in (line.bounds for line in lines) for x in (b.random, b.collapsed, b.optimum)
    ]
    levels += [e.value for e in evaluation.episodes]
    low, high = min(levels, default=0.0), max(levels, default=1.0)
    margin = 0.06 * (high - low) or 1.0
    panels = []
    for i, line in enumerate(lines):
        mine = _episodes(evaluation, line)
        drawing = draw_returns(
            np.array([e.value for e in mine]),
            np.array([e.success for e in mine]),
            line.bounds,
            span=(low - margin, high + margin),
            key=f"returns-{i}",
            label=f"Returns of {line.task}: mean {line.value:.2f}, worst {line.worst:.2f}",
        )
        panels.append(_panel(_name(line), drawing))
    return _section(
        "How good is each episode?",
        _grid(panels),
        "A mark is an episode's return, a cross one that did not end solved. Box: the middle half "
        "and the median; diamond: the mean. Bounds are means: an episode may pass the optimum.",
    )


def who_drives(evaluation: Evaluation) -> str:
    """Skills over time."""
    manifest = evaluation.bundle.manifest
    panels = []
    for i, line in enumerate(evaluation.lines):
        mine = sorted(_episodes(evaluation, line), key=lambda e: e.number)[:ROWS]
        drawing = draw_timeline(
            mine,
            skill_colours(len(manifest.skills)),
            decision_ticks=manifest.decision_ticks,
            key=f"who-{i}",
            label=f"Active skill per tick of {line.task}, {len(mine)} episodes",
        )
        panels.append(_panel(_name(line), drawing))
    return _section(
        "Who drives when?",
        _legend(manifest.skills) + _grid(panels),
        f"A row is an episode (with its number), a colour the skill that drives. "
        f"The master decides at every cut, once in {manifest.decision_ticks} ticks "
        f"({manifest.decision_ticks * manifest.interface.control_dt:g} s).",
    )


def who_shares(evaluation: Evaluation) -> str:
    """Whether the skills tell the tasks of a family apart."""
    title = "Do tasks differ in their skills?"
    words = []
    if evaluation.distance is not None and len(evaluation.bundle.manifest.skills) > 1:
        words.append(
            f"The nearest two skills are {evaluation.distance:.2f} apart: half the root mean "
            "square difference of their actions on what was seen, 0 for skills that act alike, "
            "1 for opposite ones at their limits."
        )
    if not evaluation.sharing:
        return _section(title, "", " ".join(["One task has nothing to differ from.", *words]))
    rows = [
        (
            each.family,
            f"{each.tasks}",
            f"{each.information:.2f} of {each.possible:.2f} bits",
            each.collapsed or "not collapsed",
        )
        for each in evaluation.sharing
    ]
    words.append(
        "I(skill; task) is what the active skill tells about the task: 0 when the master uses "
        "the skills alike on all tasks. Collapsed are skills for which it is less than half of "
        "what is possible, while a task stays poor."
    )
    body = _table(("family", "tasks", "I(skill; task)", "the skills"), rows)
    return _section(title, body, " ".join(words))


def on_time(evaluation: Evaluation) -> str:
    """Lateness and compute of ticks, where there was a clock."""
    title = "Does the tick keep its time?"
    measured = {
        "started late by": _all([e.lateness for e in evaluation.episodes]),
        "sensors to command": _all([e.compute for e in evaluation.episodes]),
    }
    if not len(measured["started late by"]):
        return _section(title, "", "An offline evaluation has no clock: there is nothing to time.")
    panels, words = [], []
    for i, (name, values) in enumerate(measured.items()):
        if len(values):
            p50, p99 = np.percentile(values, [50, 99])
            words.append(
                f"{name}: p50 {p50:.2f} ms, p99 {p99:.2f} ms, worst {values.max():.2f} ms"
            )
            drawing = draw_histogram(values, key=f"time-{i}", label=words[-1])
            panels.append(_panel(name, drawing))
    period = MILLI * evaluation.bundle.manifest.interface.control_dt
    caption = f"{'; '.join(words)}. A tick has {period:g} ms. Counts are on a logarithmic scale."
    return _section(title, _grid(panels), caption[0].upper() + caption[1:])


# Where it comes from ------------------------------------------------------------------------


def provenance(evaluation: Evaluation) -> str:
    """What was run to make the bundle."""
    manifest = evaluation.bundle.manifest
    origin = manifest.provenance
    facts = {
        "seed": str(origin.seed),
        "environment steps": f"{origin.steps:,}",
        "updates": f"{origin.updates:,}",
        "commit": origin.commit or "unknown",
        "trained on": manifest.family.name,
        "versions": ", ".join(f"{k} {v}" for k, v in sorted(origin.versions.items())),
        "bundle digest": manifest.digest,
    }
    listed = "".join(f"<div><dt>{k}</dt><dd>{escape(v)}</dd></div>" for k, v in facts.items())
    skills = _table(
        ("skill", "SHA-256"),
        (
            (name, f"{manifest.files.get(file, '')[:16] or 'unknown'}")
            for name, file in zip(manifest.skills, manifest.skill_files, strict=True)
        ),
    )
    masters = _table(
        ("master", "task", "score in training", "steps", "seed"),
        (_master(name, master) for name, master in sorted(manifest.masters.items())),
    )
    return f"""<section><details><summary><h2>Where does it come from?</h2></summary>
<pre class="scroll" tabindex="0"><code>{escape(origin.command)}</code></pre>
<dl class="facts">{listed}</dl>{skills}{masters}</details></section>"""


def _master(name: str, master: Master) -> tuple[str, ...]:
    score = master.score
    share = normalised(Bounds(score.random, score.collapsed, score.optimum), score.value)
    origin = master.provenance
    return name, master.task, _percent(share), f"{origin.steps:,}", str(origin.seed)


# Pieces -------------------------------------------------------------------------------------


def _section(title: str, body: str, caption: str) -> str:
    return f'<section><h2>{title}</h2>{body}<p class="caption">{escape(caption)}</p></section>'


def _grid(panels: list[str]) -> str:
    return f'<div class="grid">{"".join(panels)}</div>'


def _panel(name: str, drawing: str) -> str:
    return f"<figure><figcaption>{name}</figcaption>{drawing}</figure>"


def _name(line: Line) -> str:
    return f"{escape(line.task)} <small>master {escape(line.master)}</small>"


def _legend(skills: Sequence[str]) -> str:
    colours = skill_colours(len(skills))
    keys = (
        f'<li><i style="background:{colour}"></i>{escape(name)}</li>'
        for name, colour in zip(skills, colours, strict=True)
    )
    return f'<ul class="legend" aria-label="Colours of the skills">{"".join(keys)}</ul>'


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    top = "".join(f'<th scope="col" class="text">{escape(name)}</th>' for name in head)
    body = "".join(
        f"<tr>{''.join(f'<td class=text>{escape(cell)}</td>' for cell in row)}</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(head[0])}s"><table>'
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _episodes(evaluation: Evaluation, line: Line) -> list[Episode]:
    return [e for e in evaluation.episodes if (e.task, e.master) == (line.task, line.master)]


def _all(parts: Iterable[Floats | None]) -> Floats:
    """(n,) ms of all ticks that were measured."""
    present = [part for part in parts if part is not None]
    return MILLI * np.concatenate([np.zeros(0), *present])
