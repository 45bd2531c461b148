"""Verdicts on trainings whose truth is known: the confusion table of policies/training/verdict.py.

python -m tests.benchmarks.verdicts OUT.json [--only NAME] [--steps-factor 1.0]

A row is written as soon as its training is done, and what is in the file is not trained again.
"""

import argparse
import json
import sys
import tempfile
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
from tests.benchmarks import one_line_errors, output_of
from tests.support.shifted_bandits import ShiftedBandits

FAMILIES[ShiftedBandits.name] = ShiftedBandits
EPISODES = 16  # of each task of a bundle
BUNDLES = ("moving_bandits", "rooms", "ant_bandits", "body_bandits", "ant_movement", "arm_reach")
LATE = 0.3  # part of the iterations for which `late_master_rate` holds
# New masters for all tasks of a family over the skills of `moving_bandits`: family, learner,
# updates, truth. No skill alone is enough for these tasks. On `patrol` PPO has 1.2 of 16 after
# twice as many updates, and `q` half of it after 10.
MASTERS = (
    ("patrol", "ppo", 20, "NEEDS_SEQUENCE"),
    ("patrol", "q", 10, "NEEDS_SEQUENCE"),
    ("ring_bandits", "q", 10, "SERVED"),
)


@dataclass(frozen=True)
class Known:
    """A training whose truth is known."""

    name: str
    truth: Verdict
    family: str = "moving_bandits"
    settings: tuple[str, ...] = ()
    seed: int = 0
    preset: str = "default"
    # Of the masters' policies in the last part of the training, in which the skills stay as they
    # are: so large that no master learns to select one.
    late_master_rate: float | None = None

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
    early = Verdict.NOT_LEARNED
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
            Known(
                f"lost-masters-{seed}",
                Verdict.MASTERS_UNDECIDED,
                seed=seed,
                late_master_rate=10.0,
            ),
        ]
    # What helped: seeds 0 and 1 of `moving_bandits` are served after 1 M steps, the ring with seed
    # 0 and three skills after 2 M. With seed 1 the ring is not served by 2 M steps, nor by new
    # masters over its skills; with other seeds it is, in part.
    ring = "ring_bandits"
    found += [
        Known("third-0", early, settings=("steps=300000",), seed=0),
        Known("sixth-0", early, settings=("steps=150000",), seed=0),
        Known("sixth-1", early, settings=("steps=150000",), seed=1),
        Known("ring-0", few, ring, ("steps=600000",), seed=0),
        Known("ring-1", early, ring, ("steps=600000",), seed=1),
        Known("ring-three-0", fine, ring, ("steps=2000000", "mlsh.skills=3"), seed=0),
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
    for number in range(config.iterations):
        if case.late_master_rate and number == round((1 - LATE) * config.iterations):
            learner.agent.masters.policy_adam.learning_rate = case.late_master_rate
            learner.agent.skills.policy_adam.learning_rate = 0.0
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


def evaluate(
    name: str, family: str | None = None, truth: str = Verdict.SERVED.name
) -> dict[str, object]:
    """Evaluates a bundle on a family, or on its own, which it serves; returns its row."""
    bundle = load_bundle(name)
    family = family or bundle.manifest.family.name
    cases = [case for case in resolve_cases(bundle) if case.task.family == family]
    episodes = run_offline(cases, episodes=EPISODES, seed=0)
    (sharing,) = summarize(cases, "sim", 0, episodes).sharing
    return {
        "truth": truth,
        "verdict": sharing.verdict.name,
        "text": sharing.explanation,
    }


def learn(family: str, learner: str, updates: int, truth: str) -> dict[str, object]:
    """Evaluates new masters over the skills of `moving_bandits`; returns their row."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/learned"
        command = [sys.executable, "-m", "mlsh_ros.cli.main", "finetune", "moving_bandits"]
        command += ["--task", family, "--learner", learner, "--updates", str(updates)]
        output_of([*command, "--no-baseline", "-o", path])
        return evaluate(path, family, truth)


@one_line_errors
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
        **{
            f"{family}-{learner}": (lambda given=(family, learner, *rest): learn(*given))
            for family, learner, *rest in MASTERS
        },
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
