"""The least-squares problem: residuals and their derivatives by finite differences."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import mujoco
import numpy as np
from numpy.typing import NDArray

from mlsh_ros.sim2real.replay.batched_replay import BatchedReplay, PredictedElement
from mlsh_ros.sim2real.sysid.parameters import DELAYS, Unknown, values_of
from sim.interface import Floats
from sim.physics.mjcf_addresses import BASE

OFFSET = 0.3  # rad or m that a start may be off: sensors are late and not exact
FLOOR = 2e-3  # of an element's movement: no model is better than that
STEP = 1e-3  # of the bounds, for derivatives: longer than what contacts make uneven
FAR = 0.3  # of a range, for errors: over that the jumps of servos that saturate even out
EVERY = 10.0  # s between two words of how far it is
MEDIAN = 0.6745  # of the magnitude of a normal number
ROUGH = 3.0  # times the usual error from which on a window counts less: a disturbance


@dataclass
class Problem:
    """Some unknowns, and the windows to fit.

    Args:
        follower: that predicts.
        unknowns: to identify.
        use: (W,) windows that are fitted.
    """

    follower: BatchedReplay
    unknowns: list[Unknown]  # that are still searched
    use: NDArray[np.bool_]
    not_identifiable: dict[str, str] = field(default_factory=dict)  # name: why it stays as it is
    gauge: str = ""  # the term whose delay counts as 0, if only sums of delays can be identified
    report: Callable[[str], None] = lambda text: None  # called with progress

    def __post_init__(self) -> None:
        follower = self.follower
        self.values = values_of(follower.interface, follower.bodies, follower.known)
        for each in self.unknowns:
            self.put(self.values, each, each.known)
        self.fitted = self.use[follower.window]
        self._shown = np.ones(len(follower.window), bool)
        self.sigma = self._first_sigma()
        self._weight = np.ones(follower.windows.count)
        self._subspaces: list[tuple[NDArray[np.int64], Floats]] = []
        self._turns = follower.angles()
        self.wanted = list(self.unknowns)
        self._began = self._told = time.monotonic()

    def put(self, values: Floats, each: Unknown, value: float) -> None:
        """Set an unknown to a value, in values (n,)."""
        self.follower.differences.of(values[None], each.quantity)[0, each.element] = value

    def columns(self, unit: Floats) -> Floats:
        """(C, n) values of unknowns given in units of their bounds, (k, C)."""
        columns = np.tile(self.values, (unit.shape[1], 1))
        for each, row in zip(self.unknowns, unit, strict=True):
            part = self.follower.differences.of(columns, each.quantity)
            part[:, each.element] = each.low + row * (each.high - each.low)
        return columns

    def unit(self) -> Floats:
        """(k,) present values in units of the bounds."""
        of = self.follower.differences.of
        now = [of(self.values[None], e.quantity)[0, e.element] for e in self.unknowns]
        low, high = (np.array([getattr(e, k) for e in self.unknowns]) for k in ("low", "high"))
        return np.asarray((np.array(now) - low) / (high - low))

    def value(self, each: Unknown) -> float:
        """Present value of an unknown."""
        return float(
            self.follower.differences.of(self.values[None], each.quantity)[0, each.element]
        )

    def _first_sigma(self) -> Floats:
        """(rows,) declared noise, and a fraction of the movement."""
        follower, sigma = self.follower, np.ones(len(self.follower.measured))
        for element in follower.elements:
            moved = self._movement(element.rows)
            sigma[element.rows] = max(self._declared(element), 5 * FLOOR * moved, 1e-9)
        return sigma

    def _declared(self, element: PredictedElement) -> float:
        """Declared noise of a term's element, in its unit; for an angle, of its quaternion."""
        term = next(term for term in self.follower.terms if term.name == element.term)
        return float(term.noises[element.index])

    def _movement(self, rows: slice) -> float:
        shown = self.follower.measured[rows]
        return float(np.std(shown)) if len(shown) else 0.0

    def differences(self, values: Floats, use: NDArray[np.bool_] | None = None) -> Floats:
        """(rows, C) recorded minus predicted, in each term's unit, for any start position.

        Of windows `use` (W,), all by default; the rows of others mean nothing.
        """
        predicted = self.follower.predict(values, use)
        left = self.follower.measured[:, None] - predicted
        turned = np.round(left / (2 * np.pi)) * 2 * np.pi
        left = left - np.where(self._turns[:, None], turned, 0.0)
        left = np.nan_to_num(left, nan=1e3, posinf=1e3, neginf=-1e3) / self.sigma[:, None]
        for rows, basis in self._subspaces:
            left[rows] -= basis @ (basis.T @ left[rows])
        return np.asarray(left * self.sigma[:, None])

    def residuals(self, values: Floats) -> Floats:
        """(rows, C) differences in the fitted windows, in units of their standard deviations."""
        self._tell()
        weight = self._weight[self.follower.window] / self.sigma
        return np.asarray((self.differences(values, self.use) * weight[:, None])[self.fitted])

    def _tell(self) -> None:
        now = time.monotonic()
        if now - self._told > EVERY:
            self._told = now
            self.report(
                f"searching since {now - self._began:.0f} s, {len(self.unknowns)} numbers are left"
            )

    def cost(self, columns: Floats) -> Floats:
        """(C,) sums of the squared residuals of values (C, n)."""
        return np.asarray((self.residuals(columns) ** 2).sum(axis=0))

    def cheapest(self, columns: Floats, least: float = 0.0) -> bool:
        """Change to the best of values (C, n), if the gain is sufficient; True if it changed.

        The first column has the present values. At least a fraction `least` of their cost must be
        gained.
        """
        cost = self.cost(columns)
        if cost[0] - cost.min() < least * cost[0]:
            return False
        self.values = columns[int(cost.argmin())]
        return True

    def spans(self) -> Floats:
        """(k,) distances between the unknowns' bounds."""
        return np.array([each.high - each.low for each in self.unknowns])

    def shares(self) -> Floats:
        """(k,) widths of the ranges, in units of the bounds."""
        return np.array([each.width for each in self.unknowns]) / self.spans()

    def leave_out(self, seconds: float) -> None:
        """Exclude the last seconds of a window from the fit; 0 excludes none.

        A sensor that may be earlier than the reference sensor would measure times after the end of
        the simulation.
        """
        self._shown = self.follower.left >= seconds
        self.fitted = self.use[self.follower.window] & self._shown

    def indices(self, quantity: str) -> NDArray[np.intp]:
        """(n,) indices of a quantity's unknowns."""
        return np.flatnonzero([each.quantity == quantity for each in self.unknowns])

    def late(self) -> NDArray[np.bool_]:
        """(k,) True for unknowns that are delays."""
        return np.array([each.quantity in DELAYS for each in self.unknowns], bool)

    def forget_starts(self) -> None:
        """Compute for each window the effect of another start position.

        It is removed from the differences, as far as an offset of `OFFSET` explains it.
        """
        effects = self.follower.pose_effects(self.values) / self.sigma[:, None]
        effects = np.clip(np.nan_to_num(effects), -1e6, 1e6)
        self._subspaces = []
        for window in range(self.follower.windows.count):
            rows = np.flatnonzero((self.follower.window == window) & self._shown)
            if not len(rows):
                continue
            u, s, _ = np.linalg.svd(effects[rows], full_matrices=False)
            s = s * OFFSET
            # Square root of what a prior of that size leaves: I - u (1 - 1/sqrt(1 + s^2)) u'.
            share = 1 - 1 / np.sqrt(1 + s**2)
            self._subspaces.append((rows, u * np.sqrt(share)))

    def reweigh(self) -> None:
        """Set the weight of each element and window from its differences.

        No sensor is taken for better than it is declared to be.
        """
        left = self.differences(self.values[None])[:, 0]
        for element in self.follower.elements:
            mine = np.zeros(len(left), bool)
            mine[element.rows] = True
            spread = self._noise(element, left[mine & self.fitted])
            least = max(FLOOR * self._movement(element.rows), self._declared(element))
            self.sigma[element.rows] = max(spread, least, 1e-9)
        square = (left / self.sigma) ** 2
        counts = np.bincount(self.follower.window, minlength=len(self._weight))
        sums = np.bincount(self.follower.window, square, minlength=len(self._weight))
        rms = np.sqrt(sums / np.maximum(counts, 1))
        usual = float(np.median(rms[self.use & (counts > 0)]))
        self._weight = np.minimum(1.0, ROUGH * usual / np.maximum(rms, 1e-12))

    def _noise(self, element: PredictedElement, left: Floats) -> float:
        """Noise from the change between ticks, because the error of a bad fit changes slowly."""
        time = self.follower.windows.samples[element.term].time
        if len(left) < 2 or not len(time):
            return 0.0
        lag = max(1, round(1 / max(float(np.median(np.abs(np.diff(time)))), 1e-3)))
        change = np.abs(left[lag:] - left[:-lag])
        return float(np.median(change)) / MEDIAN / np.sqrt(2) if len(change) else 0.0

    def slopes(self, unit: Floats, step: Floats | float = STEP) -> Floats:
        """(rows, k) derivatives of the residuals in units of the bounds, by central differences.

        With `step` to either side, in units of the bounds. The measurements have a kink wherever a
        delay is a whole number of physics steps: the derivative of a delay is taken over one step.
        """
        widths = self.spans()
        late = self.late()
        half = np.where(late, 0.5 * self.follower.interface.physics_dt / widths, step)
        # A little beyond a bound is no harm to a slope, but negative factors are none.
        above = unit[:, None] + np.diag(half)
        below = unit[:, None] - np.diag(np.where((unit < half) & ~late, 0.0, half))
        left = self.residuals(self.columns(np.concatenate([above, below], axis=1)))
        count = len(unit)
        span = np.diag(above) - np.diag(below)
        return np.asarray((left[:, :count] - left[:, count:]) / span)

    def jacobian(self, *, far: bool = True) -> tuple[Floats, Floats]:
        """(rows, k) derivatives in widths of the ranges, and the residuals (rows,)."""
        unit = self.unit()
        left = self.residuals(self.columns(unit[:, None]))[:, 0]
        widths = self.shares()
        return self.slopes(unit, FAR * widths if far else STEP) * widths, left

    def mass_kg(self) -> float:
        """Mass of the nominal robot, kg, without bodies added by a task."""
        model = self.follower.open_loop.model
        base = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, BASE)
        return float(model.body_subtreemass[base])
