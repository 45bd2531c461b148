"""Least squares over what the sensors showed; what a recording tells, and what it does not."""

from __future__ import annotations

import io
from dataclasses import dataclass, field, replace

import mujoco
import mujoco.sysid as mj
import numpy as np
from numpy.typing import NDArray

from mlsh_ros.sysid.follow import Element, Follower
from mlsh_ros.sysid.unknowns import DELAYS, FIRST_KEPT, Unknown, values_of
from sim.addresses import BASE
from sim.interface import Floats
from sim.reality import LONGEST

BLIND = 100.0  # ranges: the standard error of what changes nothing
TELLS = 0.15  # standard error, of the range's width, up to which a recording tells a number
ALIKE = 0.4  # of the largest standard error: who else may stay as it is in its place
TOGETHER = 0.9  # correlation of two errors from which on they are told only together
OFFSET = 0.3  # rad or m that a start may be off: sensors are late and not exact
FLOOR = 2e-3  # of an element's movement: no model is better than that
STEP = 1e-3  # of the bounds, for derivatives: longer than what contacts make uneven
FAR = 0.3  # of a range, for errors: over that the jumps of servos that saturate even out
SCAN = 25  # delays, or frictions, tried over all that is possible
NEARBY = 2  # physics steps that a single actuator is tried later, a single sensor earlier
NEAR = 0.05  # physics steps that a delay is tried beside where it is
WEAKEST = 3  # ways of which the recording tells least, along which is looked for more
FLAT = 0.5  # of the ranges' widths: how far along them
GAINS = 1e-3  # of the cost: a move that gains less is none
ROUNDS = 5  # of such moves
SLIPS = 0.1  # of the cost, or of what noise costs, that another friction has to explain
ITERATIONS = 25
ENOUGH = 1e-6  # of the cost, or of what noise costs: an iteration that gains less is the last one
MEDIAN = 0.6745  # of the magnitude of a normal number
ROUGH = 3.0  # times the usual error from which on a window counts less: somebody pushed it


@dataclass
class Fit:
    """The problem: some unknowns, the windows that may be used.

    Args:
        follower: that predicts.
        unknowns: to identify.
        use: (W,) windows that are fitted.
    """

    follower: Follower
    unknowns: list[Unknown]
    use: NDArray[np.bool_]
    told_not: dict[str, str] = field(default_factory=dict)  # name: why it stays as it is
    gauge: str = ""  # the term whose delay counts as 0, if only sums of delays can be told

    def __post_init__(self) -> None:
        follower = self.follower
        self.values = values_of(follower.interface, follower.bodies, follower.known)
        for each in self.unknowns:
            self._put(self.values, each, each.known)
        self._fitted = self.use[follower.window]
        self._sigma = self._first_sigma()
        self._weight = np.ones(follower.windows.count)
        self._subspaces: list[tuple[NDArray[np.int64], Floats]] = []
        self._turns = follower.angles()
        self._wanted = list(self.unknowns)

    # Values -----------------------------------------------------------------------------------

    def _put(self, values: Floats, each: Unknown, value: float) -> None:
        self.follower.differences.of(values[None], each.quantity)[0, each.element] = value

    def _columns(self, unit: Floats) -> Floats:
        """(C, n) of unknowns in units of their bounds, (k, C)."""
        columns = np.tile(self.values, (unit.shape[1], 1))
        for each, row in zip(self.unknowns, unit, strict=True):
            part = self.follower.differences.of(columns, each.quantity)
            part[:, each.element] = each.low + row * (each.high - each.low)
        return columns

    def _unit(self) -> Floats:
        """(k,) of the present values."""
        of = self.follower.differences.of
        now = [of(self.values[None], e.quantity)[0, e.element] for e in self.unknowns]
        low, high = (np.array([getattr(e, k) for e in self.unknowns]) for k in ("low", "high"))
        return np.asarray((np.array(now) - low) / (high - low))

    def value(self, each: Unknown) -> float:
        """Its present value."""
        return float(
            self.follower.differences.of(self.values[None], each.quantity)[0, each.element]
        )

    # Residuals --------------------------------------------------------------------------------

    def _first_sigma(self) -> Floats:
        """(rows,) what is declared of noise, and a share of the movement."""
        follower, sigma = self.follower, np.ones(len(self.follower.measured))
        terms = {term.name: term for term in follower.terms}
        for element in follower.elements:
            moved = self._movement(element.rows)
            sigma[element.rows] = max(terms[element.term].noise, 5 * FLOOR * moved, 1e-9)
        return sigma

    def _movement(self, rows: slice) -> float:
        shown = self.follower.measured[rows]
        return float(np.std(shown)) if len(shown) else 0.0

    def differences(self, values: Floats, use: NDArray[np.bool_] | None = None) -> Floats:
        """(rows, C) recorded less predicted, in each term's unit, wherever the robot started.

        Of windows `use` (W,), all by default; the rows of others mean nothing.
        """
        predicted = self.follower.predict(values, use)
        left = self.follower.measured[:, None] - predicted
        turned = np.round(left / (2 * np.pi)) * 2 * np.pi
        left = left - np.where(self._turns[:, None], turned, 0.0)
        left = np.nan_to_num(left, nan=1e3, posinf=1e3, neginf=-1e3) / self._sigma[:, None]
        for rows, basis in self._subspaces:
            left[rows] -= basis @ (basis.T @ left[rows])
        return np.asarray(left * self._sigma[:, None])

    def _residuals(self, values: Floats) -> Floats:
        weight = self._weight[self.follower.window] / self._sigma
        return np.asarray((self.differences(values, self.use) * weight[:, None])[self._fitted])

    def _forget_starts(self) -> None:
        """Of each window, what another position at its start would have changed.

        It is taken out of the differences, as far as it is no larger than `OFFSET` explains.
        """
        effects = self.follower.pose_effects(self.values) / self._sigma[:, None]
        effects = np.clip(np.nan_to_num(effects), -1e6, 1e6)
        self._subspaces = []
        for window in range(self.follower.windows.count):
            rows = np.flatnonzero(self.follower.window == window)
            if not len(rows):
                continue
            u, s, _ = np.linalg.svd(effects[rows], full_matrices=False)
            s = s * OFFSET
            # Square root of what a prior of that size leaves: I - u (1 - 1/sqrt(1 + s^2)) u'.
            share = 1 - 1 / np.sqrt(1 + s**2)
            self._subspaces.append((rows, u * np.sqrt(share)))

    def _reweigh(self) -> None:
        """Give each element and window the weight that its differences deserve.

        No sensor is taken for better than it is declared to be.
        """
        left = self.differences(self.values[None])[:, 0]
        declared = {term.name: term.noise for term in self.follower.terms}
        for element in self.follower.elements:
            mine = np.zeros(len(left), bool)
            mine[element.rows] = True
            spread = self._noise(element, left[mine & self._fitted])
            least = max(FLOOR * self._movement(element.rows), declared[element.term])
            self._sigma[element.rows] = max(spread, least, 1e-9)
        square = (left / self._sigma) ** 2
        counts = np.bincount(self.follower.window, minlength=len(self._weight))
        sums = np.bincount(self.follower.window, square, minlength=len(self._weight))
        rms = np.sqrt(sums / np.maximum(counts, 1))
        usual = float(np.median(rms[self.use & (counts > 0)]))
        self._weight = np.minimum(1.0, ROUGH * usual / np.maximum(rms, 1e-12))

    def _noise(self, element: Element, left: Floats) -> float:
        """What changes from tick to tick: what is left of a bad fit changes slowly."""
        time = self.follower.windows.samples[element.term].time
        if len(left) < 2 or not len(time):
            return 0.0
        lag = max(1, round(1 / max(float(np.median(np.abs(np.diff(time)))), 1e-3)))
        change = np.abs(left[lag:] - left[:-lag])
        return float(np.median(change)) / MEDIAN / np.sqrt(2) if len(change) else 0.0

    # Solving ----------------------------------------------------------------------------------

    def run(self) -> Floats:
        """Identify; returns (k,) standard errors of the unknowns that are left."""
        self._fix_gauge()
        self._forget_starts()
        self._scan()
        self._forget_starts()
        self._drop(strict=True)
        for _ in range(2):
            self._optimize()
            if self._scan() | self._scan_friction():
                self._optimize()
            self._reweigh()
            self._forget_starts()
        while True:
            self._optimize()
            if self._scan():
                self._optimize()
            for _ in range(ROUNDS):
                self._settle()
                if not (self._slide() | self._scan_valleys()):
                    break
            if not self._drop(strict=False):
                break
        errors = self._errors()[0]
        self._move_gauge()
        return errors

    def _optimize(self) -> None:
        """Levenberg and Marquardt's method within bounds, as mujoco.sysid has it."""
        if not self.unknowns:
            return
        params = mj.ParameterDict()
        for each, unit in zip(self.unknowns, self._unit(), strict=True):
            params.add(mj.Parameter(each.name, float(np.clip(unit, 0.0, 1.0)), 0.0, 1.0))

        def residual(x: Floats, _: object) -> tuple[list[Floats], None, None]:
            columns = x if x.ndim == 2 else x[:, None]
            left = self._residuals(self._columns(columns))
            return [left if x.ndim == 2 else left[:, 0]], None, None

        costs = [np.inf]

        def slopes(x: Floats, left: Floats) -> Floats:
            costs.append(float((left**2).sum()))
            if costs[-2] - costs[-1] < ENOUGH * max(costs[-1], len(left)):
                return np.zeros((len(left), len(x)))  # without a gradient it ends here
            return self._slopes(x[:, 0])

        found, _ = mj.optimize(
            params,
            residual,
            optimizer="mujoco",
            verbose=False,
            jacobian=slopes,
            x_scale="jac",
            max_iters=ITERATIONS,
            xtol=1e-5,
            gtol=1e-6,
            mu_factor=4.0,  # its own takes a hundred tries to find that it is at the end
            output=io.StringIO(),
        )
        self.values = self._columns(found.as_vector()[:, None])[0]

    def _settle(self) -> None:
        """Descend with the delays where they are: at their bends a descent of all ends early."""
        everything = self.unknowns
        self.unknowns = [each for each in everything if each.quantity not in DELAYS]
        self._optimize()
        self.unknowns = everything

    def _slide(self) -> bool:
        """Move delays to where they explain most if everything else gives way to them.

        At a whole step a delay has a bend, and the other numbers hold it beside that: neither it
        nor they get any better alone. Says whether any moved.
        """
        late = np.array([each.quantity in DELAYS for each in self.unknowns], bool)
        if not late.any() or late.all():
            return False
        dt = self.follower.interface.physics_dt
        low = np.array([each.low for each in self.unknowns])
        width = np.array([each.high for each in self.unknowns]) - low
        unit = self._unit()
        basis, triangle = np.linalg.qr(self._slopes(unit)[:, ~late])
        moved = False
        for mine in (late, *np.eye(len(late), dtype=bool)[late]):
            now = low + unit * width
            whole = [np.round(now / dt), *(np.floor(now / dt) + n for n in (-1, 0, 1, 2))]
            near = [now - NEAR * dt, now + NEAR * dt]
            tried = [now, *(np.where(mine, x, now) for x in (*(w * dt for w in whole), *near))]
            units = np.clip((np.array(tried) - low) / width, 0, 1).T
            left = self._residuals(self._columns(units))
            along = basis.T @ left
            cost = (left**2).sum(axis=0) - (along**2).sum(axis=0)
            best = int(cost.argmin())
            if cost[0] - cost[best] > GAINS * cost[0]:
                unit = units[:, best]
                unit[~late] -= np.linalg.lstsq(triangle, along[:, best], rcond=None)[0]
                unit = np.clip(unit, 0, 1)
                moved = True
        self.values = self._columns(unit[:, None])[0]
        return moved

    def _scan(self) -> bool:
        """Move delays to where they explain most: there are other minima; says whether any moved.

        First those of all actuators together, then each sensor's, then that of the sensor which
        counts as on time: the commands come later by as much as the other sensors come earlier.
        Then, nearby, single actuators against single sensors.
        Between whole physics steps lies a ridge that no descent crosses.
        """
        each = np.eye(len(self.unknowns))
        motors = np.array([e.quantity == DELAYS[0] for e in self.unknowns], bool)
        late = np.array([e.quantity == DELAYS[1] for e in self.unknowns], bool)
        far = [each[motors].sum(axis=0), *each[late]]
        if self.gauge:
            far.append(each[motors].sum(axis=0) - each[late].sum(axis=0))
        single = each[motors] if motors.sum() > 1 else []
        before = self.values.copy()
        for way in far:
            self._try_delays(way, nearby=False)
        for motor in single:
            for sensor in each[late]:
                self._try_delays(motor - sensor, nearby=True)
        return not np.allclose(self.values, before)

    def _try_delays(self, way: Floats, *, nearby: bool) -> None:
        """Move delays along a way (k,) to where they explain most."""
        if not way.any():
            return
        dt = self.follower.interface.physics_dt
        width = np.array([each.high - each.low for each in self.unknowns])
        step, count = dt, NEARBY
        if not nearby:
            longest = float(width[way != 0].max())
            # Whole steps away lies the other side of the ridge, in between the ridge.
            step = dt * max(1, round(longest / (SCAN // 2) / dt))
            count = int(longest / step)
        shift = np.r_[0, np.arange(-count, count + 1)] * step
        unit = np.clip(self._unit()[:, None] + (way / width)[:, None] * shift, 0, 1)
        columns = self._columns(unit)
        cost = (self._residuals(columns) ** 2).sum(axis=0)
        self.values = columns[int(cost.argmin())]

    def _scan_friction(self) -> bool:
        """Move friction to where it explains much more, if there is such; says whether it moved.

        Where everything grips no slope leads away from it, and it may have been dropped for that.
        The other unknowns begin again then: until now they stood in for slipping wheels.
        """
        each = next((e for e in self._wanted if e.quantity == "friction_factor"), None)
        if each is None:
            return False
        columns = np.tile(self.values, (SCAN + 1, 1))
        part = self.follower.differences.of(columns, each.quantity)
        part[1:, each.element] = np.geomspace(each.low, each.high, SCAN)
        cost = (self._residuals(columns) ** 2).sum(axis=0)
        if cost[0] - cost.min() < SLIPS * max(cost[0], int(self._fitted.sum())):
            return False
        for other in self.unknowns:
            self._put(self.values, other, other.known)
        self._put(self.values, each, float(part[int(cost.argmin()), each.element]))
        if each not in self.unknowns:
            self.unknowns.append(each)
            del self.told_not[each.name]
        self._scan()
        return True

    def _scan_valleys(self) -> bool:
        """Move along the ways that the recording tells least of; says whether that was worth it.

        Where servos saturate there are bumps in the valley that no descent crosses.
        """
        if not self.unknowns:
            return False
        jacobian, left = self._jacobian()
        _, _, ways = np.linalg.svd(np.linalg.qr(jacobian, mode="r"))
        widths = np.array([e.width / (e.high - e.low) for e in self.unknowns])
        far = FLAT * 2.0 ** -np.arange(6)
        shift, unit = np.r_[-far, far], self._unit()[:, None]
        units = [unit + (way * widths)[:, None] * shift for way in ways[-WEAKEST:]]
        columns = self._columns(np.clip(np.concatenate(units, axis=1), 0, 1))
        cost = (self._residuals(columns) ** 2).sum(axis=0)
        now = float((left**2).sum())
        if now - cost.min() < GAINS * now:
            return False
        self.values = columns[int(cost.argmin())]
        return True

    def _slopes(self, unit: Floats, step: Floats | float = STEP) -> Floats:
        """(rows, k) of the residuals per unit of the bounds, by central differences.

        Over `step` to either side, in units of the bounds. What is shown has a bend wherever a
        delay is a whole number of physics steps: a slope of a delay is taken over one of them.
        """
        widths = np.array([each.high - each.low for each in self.unknowns])
        late = np.array([each.quantity in DELAYS for each in self.unknowns])
        half = np.where(late, 0.5 * self.follower.interface.physics_dt / widths, step)
        # A little beyond a bound is no harm to a slope, but negative factors are none.
        above = unit[:, None] + np.diag(half)
        below = unit[:, None] - np.diag(np.where((unit < half) & ~late, 0.0, half))
        left = self._residuals(self._columns(np.concatenate([above, below], axis=1)))
        count = len(unit)
        span = np.diag(above) - np.diag(below)
        return np.asarray((left[:, :count] - left[:, count:]) / span)

    def _jacobian(self, *, far: bool = True) -> tuple[Floats, Floats]:
        """(rows, k) per width of the ranges, and the residuals (rows,)."""
        unit = self._unit()
        left = self._residuals(self._columns(unit[:, None]))[:, 0]
        widths = np.array([e.width / (e.high - e.low) for e in self.unknowns])
        return self._slopes(unit, FAR * widths if far else STEP) * widths, left

    def _errors(self, strict: bool = False) -> tuple[Floats, Floats]:
        """(k,) standard errors in the ranges' widths, (k, k) correlations."""
        if not self.unknowns:
            return np.zeros(0), np.zeros((0, 0))
        # At the beginning, where nothing fits, what is far away says nothing of it.
        jacobian, left = self._jacobian(far=not strict)
        count = len(self.unknowns)
        # Not of the product: it has lost what the weakest of many unknowns show.
        _, size, way = np.linalg.svd(np.linalg.qr(jacobian, mode="r"))
        inverse = (way.T / (size**2 + BLIND**-2)) @ way
        # Strict: as if the declared noise were all there is.
        variance = 1.0 if strict else float(left @ left) / max(len(left) - count, 1)
        covariance = variance * inverse
        if not strict:
            # What is left of a window hangs together: count windows, not samples. Each unknown
            # has taken one of them to fit itself.
            window = self.follower.window[self._fitted]
            scores = np.stack(
                [jacobian[window == w].T @ left[window == w] for w in np.unique(window)]
            )
            clustered = inverse @ (scores.T @ scores) @ inverse
            clustered *= len(scores) / max(len(scores) - count, 1)
            worse = np.maximum(np.diag(clustered), np.diag(covariance)) / np.diag(covariance)
            covariance = covariance * np.sqrt(np.outer(worse, worse))
        errors = np.sqrt(np.diag(covariance))
        return errors, covariance / np.outer(errors, errors)

    def _drop(self, *, strict: bool) -> bool:
        """Let stay as it was what the recording does not tell; says whether there was any."""
        dropped = not strict and self._weigh_together()
        while self.unknowns:
            errors, correlation = self._errors(strict)
            if errors.max() <= TELLS:
                break
            wanted = [i for i, e in enumerate(errors) if e > max(TELLS, ALIKE * errors.max())]
            out = min(wanted, key=lambda i: FIRST_KEPT.index(self.unknowns[i].quantity))
            each = self.unknowns.pop(out)
            # Those of them that are told without it.
            others = [
                self.unknowns[i - (i > out)].name
                for i in range(len(errors))
                if i != out and abs(correlation[out, i]) > TOGETHER
            ]
            self.told_not[each.name] = (
                f"only together with {', '.join(others)}"
                if others
                else "too little of it shows in the recording"
            )
            self._put(self.values, each, each.known)
            self._take_over(each)
            dropped = True
        return dropped

    def _weigh_together(self) -> bool:
        """Give the mass what a load weighs, if that shows as well; says whether it did.

        Of a base that only slides no more than the sum shows. Slopes say otherwise now and then:
        a servo that saturates a step earlier makes motions jump.
        """
        found = {each.quantity: each for each in self.unknowns}
        load, mass = found.get("payload_kg"), found.get("mass_factor")
        if load is None or mass is None:
            return False
        shift = np.array([0.0, load.known - self.value(load), load.width / 2])
        columns = np.tile(self.values, (len(shift), 1))
        of = self.follower.differences.of
        of(columns, load.quantity)[:, load.element] += shift
        of(columns, mass.quantity)[:, mass.element] -= shift / self._mass_kg()
        cost = (self._residuals(columns) ** 2).sum(axis=0)
        if cost.max() - cost[0] > TELLS * cost[0]:
            return False
        self.told_not[load.name] = f"only together with {mass.name}"
        self.unknowns.remove(load)
        self.values = columns[1]
        self._take_over(load)
        return True

    def _take_over(self, gone: Unknown) -> None:
        """What a load would have been, the mass may be."""
        if gone.quantity != "payload_kg":
            return
        more = gone.high / self._mass_kg()
        self.unknowns = [
            replace(e, high=e.high + more) if e.quantity == "mass_factor" else e
            for e in self.unknowns
        ]

    def _mass_kg(self) -> float:
        """(kg) of the nominal robot, without what a task puts around it."""
        model = self.follower.twin.model
        base = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, BASE)
        return float(model.body_subtreemass[base])

    # Delays -----------------------------------------------------------------------------------

    def _fix_gauge(self) -> None:
        """A command that acts later and sensors that show later look alike.

        If all of both are unknown, one sensor's delay counts as 0; the others may be less.
        """
        shown = {term.name for term in self.follower.terms}
        late = [e for e in self.unknowns if e.quantity == "sensor_delay"]
        names = {e.name.partition(".")[0]: e for e in late}
        motors = [e for e in self.unknowns if e.quantity == "command_delay"]
        if not motors or len(motors) != self.follower.interface.action_size:
            return
        if shown - set(names):
            return
        self.gauge = next(n for n in names if n in shown)
        own = names[self.gauge].high
        for index, each in enumerate(self.unknowns):
            if each.name == f"{self.gauge}.delay_s":
                gone = index
            elif each.quantity == "sensor_delay":
                self.unknowns[index] = replace(each, low=-own)
            elif each.quantity == "command_delay":  # which has that sensor's in it
                self.unknowns[index] = replace(each, high=min(each.high + own, LONGEST))
        self._put(self.values, self.unknowns.pop(gone), 0.0)

    def _move_gauge(self) -> None:
        """The freshest sensor counts as on time; commands are as late as that makes them."""
        if not self.gauge:
            return
        shown = {term.name for term in self.follower.terms}
        index = [i for i, t in enumerate(self.follower.robot_terms) if t.name in shown]
        sensors = self.follower.differences.of(self.values[None], DELAYS[1])[0]
        commands = self.follower.differences.of(self.values[None], DELAYS[0])[0]
        least = float(sensors[index].min())
        sensors[index] -= least
        commands += least
        np.clip(commands, 0.0, None, out=commands)
