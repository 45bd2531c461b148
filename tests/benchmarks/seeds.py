"""Scores of trainings by seed, in the last fifth of the steps.

python -m tests.benchmarks.seeds ring_bandits --seeds 4 5 6 --steps 2000000 --set mlsh.probe=none

With --effect the probe of a new task sets the logits of its master by effect times confidence, in
place of the clipped z-score (ADR 54).
"""

import argparse
import time

import numpy as np
from numpy.typing import NDArray

from policies.mlsh.mlsh import Mlsh
from policies.mlsh.presets import preset
from policies.mlsh.skill_probe import Probe
from policies.training.metrics import Row, describe
from policies.training.verdict import evidence_of, judge
from sim.tasks.registry import make_family
from tests.benchmarks import one_line_errors


class EffectProbe(Probe):
    """A probe whose logits are no larger than the difference between the skills is.

    The logit is `probe_logit_clip` for a skill that has a normalized return of 1 more than the
    mean, times the part of the variance that is no noise: d^2 / (d^2 + error^2).
    """

    def bias(self, returns: NDArray[np.float64], task: int = 0) -> NDArray[np.float32]:
        k, most = self.config.skills, self.config.probe_logit_clip
        usual = self.usual.copy() if self.config.probe == "centered" else np.zeros(k)
        super().bias(returns, task)
        by_skill = [returns[self.plan() == i] for i in range(k)]
        error = np.mean([r.var(ddof=1) / len(r) for r in by_skill])  # squared
        mean = self.alone(returns)
        effect = mean - mean.mean() - usual
        confidence = effect**2 / np.maximum(effect**2 + error, 1e-12)
        return np.clip(most * effect * confidence, -most, most).astype(np.float32)


def train(given: argparse.Namespace, seed: int) -> tuple[dict[str, float], list[int], str]:
    """Scores by task, numbers of the skills that were reset, and the verdict."""
    base = preset("default", given.family, make_family(given.family).robot, seed)
    config = base.with_values([f"steps={given.steps}", *given.settings, "threads=1"])
    learner, rows = Mlsh(config), list[Row]()
    if given.effect:
        learner.probe = EffectProbe(config.mlsh, len(learner.family.tasks))
    for _ in range(config.iterations):
        it = learner.iterate()
        tasks, limits = learner.family.tasks, learner.reference_returns
        rows.append(describe(it, tasks, limits, config.mlsh.warmup, 0.0, 0.0))
    evidence = evidence_of(rows, learner.family.tasks, learner.reference_returns, config.mlsh)
    assert evidence is not None
    resets = [int(row["reset_skill"]) for row in rows if row["reset_skill"] >= 0]
    return dict(evidence.scores), resets, judge(evidence).value


@one_line_errors
def main() -> None:
    """A line per seed, then the mean and the worst of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("family")
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--set", action="append", default=[], dest="settings")
    parser.add_argument("--effect", action="store_true", help="effect times confidence")
    given = parser.parse_args()
    means = []
    for seed in given.seeds:
        begun = time.process_time()
        scores, resets, verdict = train(given, seed)
        means.append(float(np.mean(list(scores.values()))))
        each = ", ".join(f"{100 * score:.0f}" for score in scores.values())
        print(
            f"seed {seed}: {100 * means[-1]:.0f} % ({each}), resets {resets}, {verdict}; "
            f"{time.process_time() - begun:.0f} CPU s",
            flush=True,
        )
    worst = int(np.argmin(means))
    print(
        f"{given.family} {' '.join(given.settings)}{' effect' if given.effect else ''}: "
        f"mean {100 * np.mean(means):.0f} %, worst {100 * means[worst]:.0f} % "
        f"(seed {given.seeds[worst]})"
    )


if __name__ == "__main__":
    main()
