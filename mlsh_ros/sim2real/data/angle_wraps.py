"""Angles that jump by a whole turn in a recording, made continuous as in the simulation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mlsh_ros.sim2real.data.signals import SignalStream, Wrap
from sim.interface import Floats, Interface, ObservationTerm

NEARLY = 0.5 * np.pi  # rad that a jump by a turn may be off: the joint moves meanwhile
ROUND = 1e-3  # rad


def unwound(values: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """Returns angles (n, count) without jumps by a full turn, and the number of jumps (count,).

    All values of a driver that wraps are within one turn.
    """
    step = np.abs(np.diff(values, axis=0))
    jumps = (np.abs(step - 2 * np.pi) < NEARLY).sum(axis=0)
    within = np.ptp(values, axis=0) < 2 * np.pi + ROUND if len(values) else jumps > 0
    jumps = np.where(within, jumps, 0)
    return np.where(jumps > 0, np.unwrap(values, axis=0), values), jumps


def turns(term: ObservationTerm) -> bool:
    """True if a term's numbers are angles that may wrap."""
    return term.unit == "rad" and term.derive is None and not term.mujoco.task


def unwrap_streams(
    interface: Interface, streams: Sequence[SignalStream]
) -> tuple[list[SignalStream], list[Wrap]]:
    """Returns the streams with unwrapped angles, as in the simulation."""
    terms, found, wraps = {t.name: t for t in interface.observation}, [], []
    for stream in streams:
        fields = dict(stream.fields)
        for name, values in stream.fields.items():
            if not turns(terms[name]):
                continue
            fields[name], jumps = unwound(values)
            for i in np.flatnonzero((jumps > 0) & ~terms[name].wrapped):
                wraps.append(Wrap(name, int(i), float(values[:, i].max()), int(jumps[i])))
        found.append(replace(stream, fields=fields))
    return found, wraps
