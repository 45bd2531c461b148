"""Streams of the messages of one sensor topic."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlsh_ros.sim2real.data.signals import SignalStream
from mlsh_ros.sim2real.data.tick_moments import NANO
from sim.interface import Floats

# A sensor message: place among all, ns since the first, stamp in ns, and its fields.
Row = tuple[int, int, int, dict[str, Floats]]


def streams_of(
    topic: str, rows: Sequence[Row], origin: int, refused: Sequence[str]
) -> list[SignalStream]:
    """Returns one stream for all terms of the same messages; usually a single one."""
    shown: dict[bytes, list[str]] = {}
    for name in dict.fromkeys(name for row in rows for name in row[3]):
        mask = np.array([name in row[3] for row in rows])
        shown.setdefault(mask.tobytes(), []).append(name)
    return [
        _stream(topic, [row for row in rows if names[0] in row[3]], names, origin, refused)
        for names in shown.values()
    ]


def _stream(
    topic: str, rows: Sequence[Row], names: Sequence[str], origin: int, refused: Sequence[str]
) -> SignalStream:
    stamps = np.array([row[2] for row in rows], np.int64)
    return SignalStream(
        topic=topic,
        order=np.array([row[0] for row in rows]),
        received=np.array([row[1] for row in rows]) * NANO,
        # Differences of integers: a float does not hold ns since 1970.
        stamp=np.where(stamps > 0, (stamps - origin) * NANO, np.nan),
        moment=stamps,
        fields={name: np.array([row[3][name] for row in rows]) for name in names},
        refused=len(refused),
        reason=refused[0] if refused else "",
    )
