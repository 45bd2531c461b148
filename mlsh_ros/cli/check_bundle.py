"""mlsh check-bundle: validate a bundle and describe it."""

from __future__ import annotations

from mlsh_ros.cli.console import console, make_table, say
from mlsh_ros.cli.options import BindingsFile, BundleName
from mlsh_ros.evaluation.number_format import amount, percent
from policies.bundle.bundle import Bundle
from policies.bundle.bundle_files import read_files
from sim.errors import counted
from sim.interface import ActionTerm, ObservationTerm, ranges


def check_bundle(
    bundle: BundleName,
    bindings: BindingsFile = "",
) -> None:
    """Validate a bundle, recompute its golden rows, and describe it.

    With --bindings the topics, message types and fields of the file are listed. If ROS is
    installed, the types and fields are looked up.
    """
    from mlsh_ros.messages.binding_check import check_bindings
    from policies.bundle.bound_bundle import load_bound
    from policies.bundle.runtime import load_master, load_skills

    loaded = load_bound(bundle, bindings)
    check_bindings(loaded.interface, bindings)
    load_skills(loaded)
    for name in loaded.manifest.masters:
        load_master(loaded, name)
    show_bundle(loaded)
    if bindings:
        describe_topics(loaded)


def describe_topics(bundle: Bundle) -> None:
    """Print where the terms are in ROS."""
    table = make_table("term", "topic", "type", "fields", "required values")
    terms: tuple[ObservationTerm | ActionTerm, ...] = (
        *bundle.interface.observation,
        *bundle.interface.action,
    )
    for term in terms:
        ros = term.ros
        required = ", ".join(f"{path}: {value}" for path, value in ros.required_values) or "none"
        table.add_row(term.name, ros.topic, ros.type, ", ".join(ros.fields), required)
    console.print(table)


def show_bundle(bundle: Bundle) -> None:
    """Print the contents of a checked bundle."""
    m = bundle.manifest
    size = sum(len(data) for data in read_files(bundle.source).values())
    o, a = m.interface.observation_size, m.interface.action_size
    say(f"bundle {m.name} ({bundle.source}, {size / 1024:.0f} kB): valid")
    say(
        f"  robot {m.interface.robot}: {o} observations, {a} actions, a tick every "
        f"{m.interface.control_dt:g} s"
    )
    made = f"trained on {m.family.name}, seed {m.provenance.seed}, {m.provenance.steps:,} steps"
    period, lead = counted(m.decision_ticks, "tick"), counted(m.decision_lead, "tick")
    say(
        f"  {counted(len(m.skills), 'skill')} {'imported' if m.imported else made}; a decision "
        f"every {period}, taken {lead} ahead"
    )
    for name, digest in zip(m.skills, bundle.skill_hashes(), strict=True):
        say(f"  {name}  sha256 {digest[:16]}")
        if (origin := m.imported.get(name)) is not None:
            say(f"    from {origin.source} ({origin.license})")
        for term, limit in m.skill_limits.get(name, {}).items():
            seen = ", ".join(f"{low:g} to {high:g}" for low, high in ranges(limit))
            say(f"    may see {term} {seen}")
    if not m.masters:
        say("  no master yet")
        return
    table = make_table("master", "task", "return", "optimum", "normalized", "updates", "steps")
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
