"""Verdicts on trainings whose truth is known: the confusion table of policies/training/verdict.py.

python -m tests.benchmarks.verdicts OUT.json [--only NAME] [--steps-factor 1.0]

A row is written as soon as its training is done, and what is in the file is not trained again.
"""

import argparse
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from mlsh_ros.evaluation.backends import run_offline
from mlsh_ros.evaluation.case import resolve_cases
from mlsh_ros.evaluation.scores import summarize
from policies.bundle.bundle import load_bundle
from policies.mlsh.config import TrainConfig
from policies.mlsh.mlsh import Mlsh
from policies.mlsh.presets import preset
from policies.training.metrics import Row, describe
from policies.training.verdict import Verdict, evidence_of, explain, judge
from sim.tasks.registry import FAMILIES
from tests.support.shifted_bandits import ShiftedBandits

FAMILIES[ShiftedBandits.name] = ShiftedBandits
EPISODES = 16  # of each task of a bundle
BUNDLES = ("moving_bandits", "rooms", "ant_bandits", "body_bandits", "ant_movement")


@dataclass(frozen=True)
class Known:
    """A training whose truth is known."""

    name: str
    truth: Verdict
    family: str = "moving_bandits"
    settings: tuple[str, ...] = ()
    seed: int = 0
    preset: str = "default"

    def config(self, factor: float) -> TrainConfig:
        """Complete configuration, with so many times its steps."""
        base = preset(self.preset, self.family, "omni", self.seed)
        config = base.with_values(list(self.settings))
        return replace(config, steps=max(1, int(config.steps * factor)), threads=1)


def known() -> list[Known]:
    """Trainings; each is another way to be right or wrong."""
    collapsing = ("mlsh.probe=none", "mlsh.reset_skill_below=0", "mlsh.warmup=0")
    bonus = ("family_parameters.bonus=10",)
    fine, few = Verdict.SERVED, Verdict.TOO_FEW_SKILLS
    early, sequence = Verdict.NOT_LEARNED, Verdict.NEEDS_SEQUENCE
    found = []
    for seed in (0, 1):
        found += [
            Known(f"recipe-{seed}", fine, seed=seed),
            Known(f"four-skills-{seed}", fine, settings=("mlsh.skills=4",), seed=seed),
            Known(f"bonus-{seed}", fine, "shifted_bandits", bonus, seed),
            Known(
                f"three-goals-{seed}",
                few,
                settings=("family_parameters.shown=3", "steps=700000"),
                seed=seed,
            ),
            Known(
                f"three-skills-{seed}",
                fine,
                settings=("family_parameters.shown=3", "mlsh.skills=3"),
                seed=seed,
            ),
            Known(f"short-{seed}", early, settings=("steps=100000",), seed=seed),
            Known(f"faithful-{seed}", early, seed=seed, preset="faithful-2017"),
            Known(f"one-policy-{seed}", Verdict.COLLAPSED, settings=collapsing, seed=seed),
            Known(f"ring-{seed}", sequence, "ring_bandits", ("steps=600000",), seed),
        ]
    found.append(Known("bonus-short", early, "shifted_bandits", (*bonus, "steps=100000")))
    found.append(
        Known("one-skill", few, settings=("mlsh.skills=1", "mlsh.probe=none", "steps=500000"))
    )
    return found


def train(case: Known, factor: float) -> dict[str, object]:
    """Trains a case; returns its row."""
    config = case.config(factor)
    learner, rows = Mlsh(config), list[Row]()
    for _ in range(config.iterations):
        it = learner.iterate()
        tasks, limits = learner.family.tasks, learner.reference_returns
        rows.append(describe(it, tasks, limits, config.mlsh.warmup, 0.0, 0.0))
    evidence = evidence_of(rows, learner.family.tasks, learner.reference_returns, config.mlsh)
    assert evidence is not None
    said = asdict(evidence)
    said["alone"] = {task: each.tolist() for task, each in evidence.alone.items()}
    resets = [int(row["reset_skill"]) for row in rows if row["reset_skill"] >= 0]
    return {
        "truth": case.truth.name,
        "verdict": judge(evidence).name,
        "text": explain(evidence, config.mlsh),
        "evidence": said,
        "resets": resets,
    }


def evaluate(name: str) -> dict[str, object]:
    """Evaluates a shipped bundle on its own tasks, which are served; returns its row."""
    cases = resolve_cases(load_bundle(name))
    episodes = run_offline(cases, episodes=EPISODES, seed=0)
    (sharing,) = summarize(cases, "sim", 0, episodes).sharing
    return {
        "truth": Verdict.SERVED.name,
        "verdict": sharing.verdict.name,
        "text": sharing.explanation,
    }


def main() -> None:
    """Row by row, then the table of truths and verdicts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--steps-factor", type=float, default=1.0)
    given = parser.parse_args()
    rows = json.loads(given.out.read_text()) if given.out.exists() else {}
    jobs: dict[str, Callable[[], dict[str, object]]] = {
        **{f"bundle-{name}": (lambda name=name: evaluate(name)) for name in BUNDLES},
        **{case.name: (lambda case=case: train(case, given.steps_factor)) for case in known()},
    }
    for name, job in jobs.items():
        if name in rows or (given.only and name not in given.only):
            continue
        rows[name] = job()
        given.out.write_text(json.dumps(rows, indent=1))
        print(f"{name}: {rows[name]['truth']} -> {rows[name]['verdict']} {rows[name]['text']}")
    table = Counter((row["truth"], row["verdict"]) for row in rows.values())
    for (truth, verdict), count in sorted(table.items()):
        mark = "" if truth == verdict else "  <- wrong"
        print(f"{count:3d} {truth:>18} called {verdict}{mark}")


if __name__ == "__main__":
    main()
