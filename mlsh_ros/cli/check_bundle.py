"""mlsh check-bundle: validate a bundle and say what it is."""

from __future__ import annotations

from rich.table import Table

from mlsh_ros.cli.console import console, say
from mlsh_ros.cli.options import BundleName
from mlsh_ros.evaluation.number_format import amount, percent
from policies.bundle.bundle import Bundle, load_bundle
from sim.interface import ranges


def check_bundle(
    bundle: BundleName,
) -> None:
    """Validate a bundle, replay its golden rows, and print what it is."""
    from policies.bundle.runtime import load_master, load_skills

    loaded = load_bundle(bundle)
    load_skills(loaded)
    for name in loaded.manifest.masters:
        load_master(loaded, name)
    describe(loaded)


def describe(bundle: Bundle) -> None:
    """Print the contents of a checked bundle."""
    m = bundle.manifest
    size = sum(len(data) for data in bundle.files.values())
    o, a = m.interface.observation_size, m.interface.action_size
    say(f"bundle {m.name} ({bundle.source}, {size / 1024:.0f} kB): valid")
    say(
        f"  robot {m.interface.robot}: {o} observations, {a} actions, a tick every "
        f"{m.interface.control_dt:g} s"
    )
    say(
        f"  {len(m.skills)} skills trained on {m.family.name}, seed {m.provenance.seed}, "
        f"{m.provenance.steps:,} steps; a decision every {m.decision_ticks} ticks, taken "
        f"{m.decision_lead} tick(s) ahead"
    )
    for name, digest in zip(m.skills, bundle.skill_hashes(), strict=True):
        say(f"  {name}  sha256 {digest[:16]}")
        for term, limit in m.skill_limits.get(name, {}).items():
            seen = ", ".join(f"{low:g} to {high:g}" for low, high in ranges(limit))
            say(f"    may see {term} {seen}")
    table = Table(box=None, padding=(0, 2))
    for head in ("master", "task", "return", "optimum", "normalized", "updates", "steps"):
        table.add_column(head)
    for name, master in m.masters.items():
        score = master.score
        table.add_row(
            name,
            master.task,
            amount(score.value),
            amount(score.optimum),
            percent(score.normalized),
            f"{master.provenance.updates}",
            f"{master.provenance.steps:,}",
        )
    console.print(table)
