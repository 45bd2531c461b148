"""golden.npz of a bundle: recorded observations with the outputs of every network ("golden rows").

Format and checks of the file. `load_skills` and `load_master` in `policies.bundle.runtime`
recompute the outputs when a bundle is loaded, and refuse networks that do not reproduce them.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policies.bundle.bundle_files import MAX_FILE_BYTES
from policies.bundle.manifest import Manifest
from sim.errors import UserError, short
from sim.files.arrays import read_npz

Float32 = NDArray[np.float32]
MAX_ROWS = 1000  # every loader computes them


@dataclass(frozen=True)
class Golden:
    """Recorded rows that every copy of the bundle must reproduce."""

    observation: Float32  # (n, O)
    action: Float32  # (K, n, A) of every skill
    logits: dict[str, Float32]  # per master (n, K)
    skill: dict[str, NDArray[np.int64]]  # per master (n,) the greedy choice

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """All of them, by their names in golden.npz."""
        return {
            "observation": self.observation,
            "action": self.action,
            **{f"logits.{name}": value for name, value in self.logits.items()},
            **{f"skill.{name}": value for name, value in self.skill.items()},
        }

    def equals(self, other: Golden) -> bool:
        """True if both have the same arrays, with equal values."""
        mine, its = self.arrays, other.arrays
        return mine.keys() == its.keys() and all(np.array_equal(mine[k], its[k]) for k in mine)


def golden_bytes(golden: Golden) -> bytes:
    """Content of golden.npz."""
    buffer = io.BytesIO()
    np.savez(buffer, **golden.arrays)  # type: ignore[arg-type]  # its stubs know no ** of arrays
    return buffer.getvalue()


def read_golden(data: bytes, manifest: Manifest, where: str) -> Golden:
    """Returns the checked content of golden.npz."""
    try:
        arrays: dict[str, NDArray[Any]] = dict(read_npz(io.BytesIO(data), MAX_FILE_BYTES))
    except ValueError as error:
        raise UserError(f"{where}: not readable ({error})") from None
    k, o = len(manifest.skills), manifest.interface.observation_size
    n = len(np.atleast_1d(arrays.get("observation", np.zeros(0))))
    if n > MAX_ROWS:
        raise UserError(f"{where}: {n:,} rows, at most {MAX_ROWS:,} are accepted")
    expected: dict[str, tuple[tuple[int, ...], type]] = {
        "observation": ((n, o), np.float32),
        "action": ((k, n, manifest.interface.action_size), np.float32),
        **{f"logits.{name}": ((n, k), np.float32) for name in manifest.masters},
        **{f"skill.{name}": ((n,), np.int64) for name in manifest.masters},
    }
    if wrong := sorted(set(arrays) ^ set(expected)):
        raise UserError(f"{where}: array {short(wrong[0])} is missing or does not belong there")
    for name, (shape, kind) in expected.items():
        array = arrays[name]
        if array.shape != shape or array.dtype != kind or n == 0:
            raise UserError(
                f"{where}: array {name!r} is {array.shape} {array.dtype}, "
                f"not {shape} {np.dtype(kind)} with at least one row"
            )
        if not np.isfinite(array).all():
            raise UserError(f"{where}: array {name!r} is not finite")
    return Golden(
        observation=arrays["observation"],
        action=arrays["action"],
        logits={name: arrays[f"logits.{name}"] for name in manifest.masters},
        skill={name: arrays[f"skill.{name}"] for name in manifest.masters},
    )
