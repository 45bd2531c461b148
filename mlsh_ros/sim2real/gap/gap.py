"""Result of `mlsh gap`: what was compared, measured and found, as text and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mlsh_ros.recording.replay import Result
from mlsh_ros.sim2real.data.target import Target, identity_of
from mlsh_ros.sim2real.gap.closed_loop_return import ClosedLoopReturn
from mlsh_ros.sim2real.gap.data_quality import Channel, ChannelTiming, Drift, Saturation
from mlsh_ros.sim2real.gap.findings import Finding
from mlsh_ros.sim2real.gap.hypotheses import Hypothesis
from mlsh_ros.sim2real.gap.measures import HORIZONS, SINCE, Measure, Trace
from policies.bundle.bundle import Bundle
from sim.physics.robot_model import Robot
from sim.statistics import mean_interval

SCHEMA = 2
NO_GAP = "no gap"


@dataclass(frozen=True)
class Gap:
    """Result of the comparison."""

    target: Target  # a bundle, or a robot, whatever drove it
    robot: Robot  # the nominal one
    sim_params: str  # in which it was simulated, name or file; empty: the nominal model
    recordings: list[str]
    notes: list[str]  # what could not be used or compared
    findings: list[Finding]  # worst first
    causes: list[Hypothesis]
    measures: list[Measure]  # against the nominal simulation
    explained: list[Measure]  # against the simulation with all causes
    channels: list[list[Channel]]  # per recording
    timing: ChannelTiming
    saturation: list[Saturation]
    out_of_distribution: list[Drift]
    closed_loop_returns: list[ClosedLoopReturn]
    replayed: list[Result]
    traces: dict[str, tuple[Trace, Trace]]  # per element: nominal, and with all causes
    windows: int
    seconds: float  # of driving that were compared

    @property
    def name(self) -> str:
        """Name of the bundle or robot."""
        target = self.target
        return target.manifest.name if isinstance(target, Bundle) else target.name

    @property
    def digest(self) -> str | None:
        """Digest of the bundle."""
        return self.target.manifest.digest if isinstance(self.target, Bundle) else None

    @property
    def skills(self) -> tuple[str, ...]:
        """Names of the bundle's skills; empty for a robot."""
        return self.target.manifest.skills if isinstance(self.target, Bundle) else ()

    @property
    def verdict(self) -> list[str]:
        """Findings in plain words, the most important first."""
        if self.findings:
            return [str(finding) for finding in self.findings]
        if not self.measures:
            return ["nothing found in messages and timing; the motion was not compared"]
        return [f"{NO_GAP} in what could be compared" if self.notes else NO_GAP]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, with a versioned schema; unknown values are null."""
        data = {
            "schema": SCHEMA,
            "bundle": self.name if isinstance(self.target, Bundle) else None,
            "digest": self.digest,
            "robot": self.robot.name,
            "nominal": identity_of(self.robot),
            "sim_params": self.sim_params or None,
            "recordings": self.recordings,
            "notes": self.notes,
            "verdict": self.verdict,
            "findings": [asdict(f) for f in self.findings],
            "compared": {"windows": self.windows, "seconds": self.seconds},
            "worst": self._worst(),
            "terms": {m.element.name: _measured(m, self.skills) for m in self.measures},
            "explained": {
                m.element.name: {"rmse": m.rmse, "nrmse": m.nrmse} for m in self.explained
            },
            "topics": [{c.topic: asdict(c) for c in each} for each in self.channels],
            "timing": asdict(self.timing),
            "action": {e.name: asdict(e) for e in self.saturation},
            "range": {d.name: asdict(d) for d in self.out_of_distribution},
            "tasks": {f"{e.task} {e.master}": _scored(e) for e in self.closed_loop_returns},
            "replay": self._replay(),
        }
        return _plain(data)  # type: ignore[no-any-return]

    def _replay(self) -> dict[str, int | None]:
        """Counts of what was computed again; null where nothing was."""
        ticks = sum(r.ticks for r in self.replayed)
        decisions = sum(r.decisions for r in self.replayed)
        different = sum(r.different_decisions for r in self.replayed)
        return {
            "ticks": ticks,
            "decisions": decisions,
            "different_ticks": sum(r.different_ticks for r in self.replayed) if ticks else None,
            "different_decisions": different if decisions else None,
            "unseen_ticks": sum(len(r.unseen) for r in self.replayed) if ticks else None,
        }

    def _worst(self) -> dict[str, float | None]:
        """The largest number of each kind, for automatic checks."""
        every = [c for each in self.channels for c in each]
        errors = [m.nrmse for m in self.measures if not math.isnan(m.nrmse)]
        lags = [abs(m.lag) for m in self.measures if m.lag is not None]
        gains = [abs(m.gain - 1) for m in self.measures if m.gain is not None]
        losses = [
            -e.difference[0] / max(float(np.abs(e.simulation).mean()), 1e-12)
            for e in self.closed_loop_returns
        ]
        return {
            "findings": float(len(self.findings)),
            "nrmse": max(errors, default=None),
            "lag": max(lags, default=None),
            "gain_error": max(gains, default=None),
            "stale": _most(c.stale for c in every),
            "lost": _most(c.lost for c in every),
            "outside": _most(d.outside for d in self.out_of_distribution),
            "saturated": max((e.saturated for e in self.saturation), default=None),
            "lateness_p99": self.timing.lateness_p99,
            "return_loss": max(losses, default=None),
        }

    def to_json(self) -> str:
        """`to_dict` as text."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"


def _most(values: Iterable[float | None]) -> float | None:
    """The largest of those that are known; None if none is."""
    return max((value for value in values if value is not None), default=None)


def _measured(m: Measure, skills: Sequence[str]) -> dict[str, Any]:
    whole = {
        key: getattr(m, key)
        for key in (
            "samples", "rmse", "usual", "nrmse", "bias", "gain", "gain_error", "lag",
            "correlation", "noise", "outliers",
        )
    }  # fmt: skip
    return whole | {
        "unit": m.element.unit,
        "movement": m.element.scale,
        "rmse_after": {f"{h:g}": v for h, v in zip(HORIZONS, m.horizons, strict=True)},
        "nrmse_by_skill": dict(zip(skills, m.by_skill, strict=True)),
        "nrmse_by_ticks_since_switch": {str(s): v for s, v in zip(SINCE, m.by_since, strict=True)},
    }


def _scored(e: ClosedLoopReturn) -> dict[str, Any]:
    mean, low, high = e.difference
    return {
        "drives": len(e.robot),
        "ticks": e.ticks,
        "robot_return": float(e.robot.mean()),
        "robot_return_95": mean_interval(e.robot),
        "simulation_return": float(e.simulation.mean()),
        "simulation_return_95": mean_interval(e.simulation),
        "difference": mean,
        "difference_95": (low, high),
        "robot_success": float(e.robot_success.mean()),
        "simulation_success": float(e.simulation_success.mean()),
    }


def _plain(data: Any) -> Any:
    """Replaces NaN and infinity, which JSON does not have."""
    if isinstance(data, dict):
        return {key: _plain(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_plain(value) for value in data]
    if isinstance(data, float) and not math.isfinite(data):
        return None
    return data
