"""Verdicts beside the truth of interventions: the confusion table of policies/training/verdict.py.

python -m tests.benchmarks.verdicts OUT.json [--only NAME] [--steps-factor 1.0] [--table]

A row is written as soon as it is measured, and what is in the file is not measured again, unless
its truth needs an intervention that is not there. Verdicts of trainings are computed anew from the
evidence in the file, and truths from the facts there.
"""

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mlsh_ros.evaluation.backends import run_offline
from mlsh_ros.evaluation.case import resolve_cases
from mlsh_ros.evaluation.scores import best_of_each_task, summarize
from policies.bundle.bundle import load_bundle
from policies.mlsh.config import TrainConfig
from policies.mlsh.mlsh import Mlsh
from policies.mlsh.presets import preset
from policies.training.finetune import install_skills, task_config
from policies.training.metrics import Row, describe
from policies.training.verdict import Evidence, Verdict, evidence_of, explain, judge
from sim.tasks.registry import FAMILIES
from sim.tasks.task_id import TaskId
from tests.benchmarks import one_line_errors, output_of
from tests.benchmarks.known_truth import FEWEST, Facts, interventions, truth
from tests.support.shifted_bandits import ShiftedBandits

FAMILIES[ShiftedBandits.name] = ShiftedBandits
EPISODES = 16  # of each task of a bundle
# Shipped bundles, each on its own family or on another one that it has masters for.
BUNDLES = (
    *("moving_bandits", "rooms", "ant_bandits", "body_bandits", "ant_movement", "arm_reach"),
    *("ant_four", "ant_four:ant_mazes", "go2_walk", "go2_walk:mazes"),
)
LATE = 0.3  # part of the iterations for which `late_master_rate` holds
# New masters for all tasks of a family over the skills of `moving_bandits`: family, learner,
# updates.
MASTERS = (
    ("patrol", "ppo", 20),
    ("patrol", "q", 10),
    ("ring_bandits", "ppo", 20),
    ("ring_bandits", "q", 10),
)
LONG = ("steps=2000000",)


@dataclass(frozen=True)
class Known:
    """A training; each is another way to be right or wrong."""

    name: str
    family: str = "moving_bandits"
    settings: tuple[str, ...] = ()
    seed: int = 0
    preset: str = "default"
    # Of the masters' policies in the last part of the training, in which the skills stay as they
    # are: so large that no master learns to select one.
    late_master_rate: float | None = None
    later: str = ""  # name of the same training with more steps

    def config(self, factor: float) -> TrainConfig:
        """Complete configuration, with so many times its steps."""
        base = preset(self.preset, self.family, "omni", self.seed)
        config = base.with_values(list(self.settings))
        return replace(config, steps=max(1, int(config.steps * factor)), threads=1)


def known() -> list[Known]:
    """All trainings of the table."""
    collapsing = ("mlsh.probe=none", "mlsh.reset_skill_below=0", "mlsh.warmup=0")
    bonus, shown = ("family_parameters.bonus=10",), ("family_parameters.shown=3",)
    found = [Known(f"recipe-{seed}", seed=seed) for seed in (0, 1, 2)]
    for seed in (0, 1):
        found += [
            Known(f"four-skills-{seed}", settings=("mlsh.skills=4",), seed=seed),
            Known(f"bonus-{seed}", "shifted_bandits", bonus, seed),
            Known(f"three-goals-{seed}", settings=(*shown, "steps=700000"), seed=seed),
            Known(f"three-skills-{seed}", settings=(*shown, "mlsh.skills=3"), seed=seed),
            Known(f"faithful-{seed}", seed=seed, preset="faithful-2017"),
            Known(f"one-policy-{seed}", settings=collapsing, seed=seed),
            Known(f"lost-masters-{seed}", seed=seed, late_master_rate=10.0),
        ]
    found += [
        Known(
            f"{steps}k-{seed}", settings=(f"steps={steps}000",), seed=seed, later=f"recipe-{seed}"
        )
        for steps in (100, 150, 200, 250, 300, 400)
        for seed in (0, 1, 2)
    ]
    found.append(Known("bonus-100k", "shifted_bandits", (*bonus, "steps=100000"), later="bonus-0"))
    found.append(Known("one-skill", settings=("mlsh.skills=1", "mlsh.probe=none", "steps=500000")))
    ring, three = "ring_bandits", "mlsh.skills=3"
    for seed in (0, 1):
        found += [
            Known(f"ring-600k-{seed}", ring, ("steps=600000",), seed, later=f"ring-2M-{seed}"),
            Known(
                f"ring-three-600k-{seed}",
                ring,
                (three, "steps=600000"),
                seed,
                later=f"ring-three-2M-{seed}",
            ),
            Known(f"ring-three-2M-{seed}", ring, (three, *LONG), seed),
        ]
    found += [Known(f"ring-2M-{seed}", ring, LONG, seed) for seed in (0, 1, 2, 3)]
    information = "mlsh.mutual_information_coef=0.5"
    found.append(Known("ring-information-1", ring, (*LONG, information), 1))
    found.append(Known("ring-20-groups-1", ring, (*LONG, information, "mlsh.groups=20"), 1))
    return found


def train(case: Known, factor: float) -> dict[str, Any]:
    """Trains a case, and intervenes where a task is not served; returns its row."""
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
    facts = Facts(config.mlsh.skills, fewest(case.family, len(tasks)), said["scores"])
    if not facts.decided:
        arrays = learner.agent.state()
        # Without the switches of `faithful-2017` for masters, which a bundle does not have.
        method = replace(config.mlsh, master_epsilon=0.0, stale_first_decision=False)
        alone, fresh = interventions(
            replace(config, mlsh=method),
            lambda agent: agent.restore_skills(arrays),
            tasks,
            facts.poor,
            explores=True,
        )
        facts = replace(facts, alone=alone, fresh=fresh)
    return {
        "evidence": said,
        "facts": asdict(facts),
        "later": case.later,
        "text": explain(evidence, config.mlsh),
        "resets": [int(row["reset_skill"]) for row in rows if row["reset_skill"] >= 0],
    }


def fewest(family: str, tasks: int) -> int:
    """The fewest skills with which all tasks of a family are served."""
    return FEWEST.get(family, tasks)


def evaluate(name: str, family: str = "") -> dict[str, Any]:
    """Evaluates a bundle on a family, or on its own, and intervenes; returns its row."""
    bundle = load_bundle(name)
    family = family or bundle.manifest.family.name
    cases = [case for case in resolve_cases(bundle) if case.task.family == family]
    episodes = run_offline(cases, episodes=EPISODES, seed=0)
    evaluation = summarize(cases, "sim", 0, episodes)
    (sharing,) = evaluation.sharing
    own = {line.task: line.normalized for line in best_of_each_task(evaluation.lines)}
    # Skills of a bundle are as many as its makers found to be enough.
    skills = len(bundle.manifest.skills)
    facts = Facts(skills, min(skills, fewest(family, len(own))), own)
    if not facts.decided:
        config, _ = task_config(bundle, TaskId.parse(next(iter(own))), seed=0)
        short = {task: task.rpartition("/")[2] for task in own}
        alone, fresh = interventions(
            config,
            lambda agent: install_skills(agent, bundle),
            list(short.values()),
            [short[task] for task in facts.poor],
            explores=False,
        )
        facts = replace(
            facts,
            alone={task: alone[short[task]] for task in own},
            fresh={task: fresh[short[task]] for task in facts.poor},
        )
    return {"verdict": sharing.verdict.name, "facts": asdict(facts), "text": sharing.explanation}


def learn(family: str, learner: str, updates: int) -> dict[str, Any]:
    """Evaluates new masters over the skills of `moving_bandits`; returns their row."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/learned"
        command = [sys.executable, "-m", "mlsh_ros.cli.main", "finetune", "moving_bandits"]
        command += ["--task", family, "--learner", learner, "--updates", str(updates)]
        output_of([*command, "--no-baseline", "-o", path])
        return evaluate(path, family)


def judged(rows: dict[str, dict[str, Any]], name: str) -> tuple[str, str]:
    """Truth and verdict of a row; a truth is `open` as long as an intervention is missing."""
    row = rows[name]
    verdict = row.get("verdict")
    if evidence := row.get("evidence"):
        alone = {task: np.array(each) for task, each in evidence["alone"].items()}
        verdict = judge(Evidence(**{**evidence, "alone": alone})).name
    facts = Facts(**row["facts"])
    if later := row.get("later"):
        served = truth(Facts(**rows[later]["facts"])) is Verdict.SERVED if later in rows else None
        facts = replace(facts, continued=served)
    known = truth(facts)
    return "open" if known is None else known.name, str(verdict)


def show(rows: dict[str, dict[str, Any]], *, table: bool) -> None:
    """Prints the counts of truths and verdicts; with `table`, each row too."""
    found = {name: judged(rows, name) for name in rows}
    for name, (known, verdict) in sorted(found.items(), key=lambda x: x[1]) if table else ():
        facts = Facts(**rows[name]["facts"])
        best = {task: max(each) for task, each in facts.alone.items()}
        own, alone, fresh = (
            ", ".join(f"{round(100 * score)}" for score in each.values()) or "-"
            for each in (facts.own, best, facts.fresh)
        )
        said, true = (each.lower().replace("_", " ") for each in (verdict, known))
        said = said if known in (verdict, "open") else f"**{said}**"
        print(f"| `{name}` | {own} | {alone} | {fresh} | {true} | {said} |")
    for (known, verdict), count in sorted(Counter(found.values()).items()):
        mark = "" if known in (verdict, "open") else "  <- wrong"
        print(f"{count:3d} {known:>18} called {verdict}{mark}")


def read(file: Path) -> dict[str, dict[str, Any]]:
    """The rows of a file, none if there is no file."""
    return json.loads(file.read_text()) if file.exists() else {}


@one_line_errors
def main() -> None:
    """Row by row, then the table of truths and verdicts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--steps-factor", type=float, default=1.0)
    parser.add_argument("--table", action="store_true", help="a row of docs for each case")
    given = parser.parse_args()
    rows = read(given.out)
    jobs: dict[str, Callable[[], dict[str, Any]]] = {
        **{
            f"bundle-{name.replace(':', '-')}": (lambda name=name: evaluate(*name.split(":")))
            for name in BUNDLES
        },
        **{
            f"{family}-{learner}": (lambda given=(family, learner, *rest): learn(*given))
            for family, learner, *rest in MASTERS
        },
        **{case.name: (lambda case=case: train(case, given.steps_factor)) for case in known()},
    }
    if unknown := set(given.only) - jobs.keys():
        parser.error(f"--only {min(unknown)}: valid are {', '.join(jobs)}")
    for name, job in jobs.items():
        measured = name in rows and Facts(**rows[name]["facts"]).decided
        if measured or (given.only and name not in given.only):
            continue
        found = job()
        rows = {**read(given.out), name: found}  # another process may have written meanwhile
        given.out.write_text(json.dumps(rows, indent=1))
        print(f"{name}: {' -> '.join(judged(rows, name))} {rows[name]['text']}", flush=True)
    show(rows, table=given.table)


if __name__ == "__main__":
    main()
