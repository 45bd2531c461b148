"""Metrics of a run, one row per iteration: metrics.csv, TensorBoard and plots.

`describe` makes the columns of metrics.csv; its docstring and that of `Iteration` explain them.
"""

from __future__ import annotations

import csv
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import TextIO

import numpy as np

from policies.mlsh.iteration import Iteration
from policies.mlsh.skill_metrics import mutual_information
from sim.envs.reference_returns import ReferenceReturns
from sim.errors import UserError
from sim.files.bounded import read_lines
from sim.files.output import replacing
from sim.rendering.figures import verbatim

Row = dict[str, float]
# What stands in every row of a run.
MOST_BYTES = 2**28  # of metrics.csv; 250,000 iterations of eight tasks and four skills
ALWAYS = {"iteration", "steps", "seconds", "mutual_information", "skill_distance", "reset_skill"}


def describe(
    it: Iteration,
    tasks: tuple[str, ...],
    reference_returns: list[ReferenceReturns],
    warmup: int,
    seconds: float,
    rate: float,
) -> Row:
    """Returns an iteration as named numbers; a task that no warmed-up group has is absent.

    `return/...` and `usage/...` are of groups whose master is warmed up, sampled, not greedy;
    `success/...` of their episodes that ended, if any did; `alone/...` are the normalized returns
    of each skill in the probe; `reward/...` is what each reward term brought per tick.
    """
    row: Row = {
        "iteration": it.number,
        "steps": it.steps,
        "seconds": seconds,
        "steps_per_second": rate,
        "groups_warming_up": int((it.age < warmup).sum()),
        "groups_joint": int((it.age >= warmup).sum()),
        "groups_probing": int(it.probing.sum()),
        "mutual_information": skill_mutual_information(it, warmup),
        "state_information": float(it.state_information[it.age >= warmup].max(axis=1).mean())
        if (it.age >= warmup).any()
        else 0.0,
        "skill_distance": it.distance,
    }
    warm = it.age >= warmup
    scores = []
    for index, task in enumerate(tasks):
        probed = it.alone[it.probing & (it.task == index)]
        for k, score in enumerate(probed.mean(axis=0) if len(probed) else ()):
            row[f"alone/{task}/skill-{k}"] = float(score)
        mine = warm & (it.task == index)
        if not mine.any():
            continue
        value = float(it.returns[mine].mean())
        row[f"return/{task}"] = value
        if (ended := mine & ~np.isnan(it.success)).any():
            row[f"success/{task}"] = float(it.success[ended].mean())
        scores.append(reference_returns[index].normalize(value))
        for name, brought in it.reward_terms.items():
            row[f"reward/{task}/{name}"] = float(brought[mine].mean())
        for k, used in enumerate(it.usage[mine].mean(axis=0)):
            row[f"usage/{task}/skill-{k}"] = float(used)
    if scores:
        row["score"] = float(np.mean(scores))
    for level, report in (("master", it.master), ("skill", it.skill)):
        if report is not None:
            row |= {f"{level}/{name}": value for name, value in vars(report).items()}
    row["diverged"] = it.diverged
    row["reset_skill"] = -1 if it.reset_skill is None else it.reset_skill
    return row


def skill_mutual_information(it: Iteration, warmup: int) -> float:
    """I(skill; task) in bits over warmed-up groups: 1 for two skills that divide two tasks."""
    warm = it.age >= warmup
    tasks = np.unique(it.task[warm])
    use = [it.usage[warm & (it.task == task)].mean(axis=0) for task in tasks]
    return mutual_information(np.array(use))


class CsvLog:
    """metrics.csv: every row is on disk before the next iteration begins.

    Args:
        path: continued if it exists.
        columns: in order; others are left out, absent ones stay empty.
        keep_until: iteration after which to continue; later rows are dropped.
    """

    def __init__(self, path: Path, columns: list[str], keep_until: int) -> None:
        kept, damaged = _whole_rows(path, columns) if path.exists() else ([], False)
        # A damaged log must not stop the training; it is kept under another name.
        self.set_aside = _set_aside(path) if damaged else None
        kept = [row for row in kept if float(row["iteration"]) <= keep_until]
        self.earlier = [_numbers(row) for row in kept]
        # The rows that were there stay until they are written anew.
        with replacing(path, overwrite=True) as fresh, fresh.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, columns, restval="", extrasaction="ignore")
            writer.writeheader()
            writer.writerows(kept)
        self._stream: TextIO = path.open("a", newline="")
        self._writer = csv.DictWriter(self._stream, columns, restval="", extrasaction="ignore")

    def write(self, row: Row) -> None:
        """Append a row."""
        self._writer.writerow({key: f"{value:.6g}" for key, value in row.items()})
        self._stream.flush()

    def close(self) -> None:
        """Close the file; all rows have been written."""
        with suppress(OSError):  # what a full disk refused was reported when it was written
            self._stream.close()


def _whole_rows(path: Path, columns: list[str]) -> tuple[list[dict[str, str]], bool]:
    """Returns the readable rows of a file, and whether it has any other content."""
    try:
        lines = read_lines(path, MOST_BYTES, errors="replace")
    except UserError:  # it is larger than the log of a training
        return [], True
    # A killed run may leave half a line at the end, which is no damage.
    lines = [line for line in lines if line.endswith("\n")]
    try:
        header, *cells = csv.reader(lines)
    except (ValueError, csv.Error):
        return [], True
    # An earlier version had fewer columns, in the same order.
    if not header or header != [column for column in columns if column in header]:
        return [], True
    rows = [dict(zip(header, row, strict=True)) for row in cells if len(row) == len(header)]
    whole = [row for row in rows if _is_whole(row)]
    return whole, len(whole) < len(cells)


def _is_whole(row: dict[str, str]) -> bool:
    try:
        numbers = _numbers(row)
    except ValueError:
        return False
    return numbers.keys() >= ALWAYS & row.keys() and numbers["iteration"].is_integer()


def _numbers(row: dict[str, str]) -> Row:
    return {key: float(value) for key, value in row.items() if value}


def _set_aside(path: Path) -> Path:
    """Give a damaged file another name beside it; it may be too large for a copy."""
    names = (path.with_name(f"{path.stem}-damaged-{n}{path.suffix}") for n in count(1))
    place = next(name for name in names if not name.exists())
    path.rename(place)
    return place


def column_names(
    tasks: tuple[str, ...], skills: int, reward_terms: tuple[str, ...] = ()
) -> list[str]:
    """Names of all columns of `describe`, in order."""
    names = ["iteration", "steps", "seconds", "steps_per_second", "score", "mutual_information"]
    names += ["state_information", "skill_distance", "diverged"]
    names += ["groups_warming_up", "groups_joint", "groups_probing", "reset_skill"]
    for task in tasks:
        names += [f"return/{task}", f"success/{task}"]
        names += [f"{what}/{task}/skill-{k}" for what in ("usage", "alone") for k in range(skills)]
        names += [f"reward/{task}/{term}" for term in reward_terms]
    reports = ("policy_loss", "value_loss", "entropy", "kl", "clipped")
    return names + [f"{level}/{name}" for level in ("master", "skill") for name in reports]


def read_rows(path: Path) -> list[Row]:
    """Returns metrics.csv as numbers; empty cells are absent.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        header, *cells = csv.reader(read_lines(path, MOST_BYTES), strict=True)
        rows = [dict(zip(header, row, strict=True)) for row in cells]
        if not all(map(_is_whole, rows)):
            raise ValueError("a row lacks a number")
        return [_numbers(row) for row in rows]
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path}: not readable ({error.strerror})") from None
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path}: damaged ({error})") from None


@verbatim()
def plot_curves(
    rows: list[Row],
    tasks: tuple[str, ...],
    reference_returns: list[ReferenceReturns],
    skills: int,
    path: Path,
) -> None:
    """Plot the learning curves: return, usage of skills, information and distance, over steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 10), layout="constrained")
    returns, usage, information, distance = figure.subplots(4, 1, sharex=True)
    for index, task in enumerate(tasks):
        color = f"C{index}"
        x, y = _series(rows, f"return/{task}")
        returns.plot(x, y, color, label=f"{task}, sampled")
        returns.axhline(reference_returns[index].optimum, color=color, ls=":", lw=1)
        x, y = _series(rows, f"usage/{task}/skill-0")
        usage.plot(x, y, color, label=task)
    task_blind = float(np.mean([b.task_blind for b in reference_returns]))
    returns.axhline(task_blind, color="0.5", ls="--", lw=1, label="task-blind (one goal for all)")
    returns.set_ylabel("return per episode\n(dotted: optimum)")
    usage.set_ylabel("time in skill-0")
    information.plot(*_series(rows, "mutual_information"), "k")
    information.set_ylabel("I(skill; task), bits")
    information.set_ylim(-0.05, np.log2(min(skills, len(tasks))) + 0.05)
    distance.plot(*_series(rows, "skill_distance"), "k")
    distance.set_ylabel("nearest two skills,\n0 alike, 1 opposite")
    distance.set_ylim(0, 1)
    distance.set_xlabel("environment steps")
    for axis in (returns, usage):
        axis.legend(loc="lower right", fontsize=8)
    for axis in (returns, usage, information, distance):
        axis.grid(alpha=0.3)
    with replacing(path, overwrite=True) as fresh:
        figure.savefig(fresh, dpi=120)


def _series(rows: list[Row], key: str) -> tuple[list[float], list[float]]:
    have = [row for row in rows if key in row]
    return [row["steps"] for row in have], [row[key] for row in have]
