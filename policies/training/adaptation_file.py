"""Learning curves of new tasks as CSV, with the provenance of the skills."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from policies.bundle.adaptation import AdaptationPoint
from policies.training.trained_with import Trained
from sim.errors import UserError
from sim.files.bounded import read_lines
from sim.files.output import write_csv

MOST_BYTES = 2**24  # of a file; a row has some 150 bytes

HEADER = [
    *("task", "updates", "steps", "seconds", "greedy_return", "success"),
    *("iteration", "settings", "robot"),
]


@dataclass(frozen=True)
class CurveOrigin:
    """Training that curves belong to; they are not valid for any other."""

    iteration: int  # of the training that the skills are from; 0 without one
    settings: str  # digests, see `Trained`
    robot: str

    @classmethod
    def of(cls, trained: Trained, iteration: int) -> CurveOrigin:
        """Returns the origin for a checkpoint, or for a learner without one."""
        return cls(iteration, trained.settings_digest, trained.robot_digest)


@dataclass(frozen=True)
class Curves:
    """Content of a file of learning curves."""

    origin: CurveOrigin
    by_task: dict[str, list[AdaptationPoint]]


def write_adaptation(
    path: Path, tasks: tuple[str, ...], curves: list[list[AdaptationPoint]], origin: CurveOrigin
) -> None:
    """Write learning curves of masters as CSV."""
    known = (origin.iteration, origin.settings, origin.robot)
    rows = (
        (task, p.updates, p.steps, *p.texts, *known)
        for task, curve in zip(tasks, curves, strict=True)
        for p in curve
    )
    write_csv(path, HEADER, rows, overwrite=True)


def read_adaptation(path: Path, updates: int) -> Curves:
    """Read a complete file of `write_adaptation`.

    Args:
        path: the file.
        updates: number of updates that every curve must have.

    Raises:
        UserError: the file is missing, damaged or incomplete, or its origin is missing.
    """
    try:
        header, *rows = csv.reader(read_lines(path, MOST_BYTES), strict=True)
        if header != HEADER:
            raise ValueError(f"its columns are not {', '.join(HEADER)}")
        if any(len(row) != len(HEADER) for row in rows):
            raise ValueError("a row has not all columns")
        (origin,) = {CurveOrigin(int(row[6]), row[7], row[8]) for row in rows}
        groups = groupby(rows, key=lambda row: row[0])
        found = [(task, [_progress(row) for row in each]) for task, each in groups]
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path}: not readable ({error.strerror})") from None
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path}: damaged ({error})") from None
    curves = dict(found)
    whole = all([p.updates for p in c] == list(range(updates + 1)) for c in curves.values())
    if not whole or len(curves) != len(found):
        raise UserError(f"{path}: damaged (not every task has rows for 0 to {updates} updates)")
    return Curves(origin, curves)


def _progress(row: list[str]) -> AdaptationPoint:
    updates, steps = int(row[1]), int(row[2])
    seconds, greedy, success = (float(text) for text in row[3:6])
    if not all(map(math.isfinite, (seconds, greedy, success))):
        raise ValueError("a number is not finite")
    return AdaptationPoint(updates, steps, seconds, greedy, success)
