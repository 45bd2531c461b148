"""Adds a skill that was trained from another one of a bundle; the other skills stay as they are.

The new skill is the last one. Existing masters never select it: their networks get an output for
it that is far below all others. In a master that was learned with the new skill in place of the
old one, the output of the old skill becomes that of the new one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from policies.bundle.bundle import Bundle
from policies.bundle.golden import Golden
from policies.bundle.manifest import Derivation
from policies.bundle.onnx_reader import read_graph
from policies.bundle.onnx_writer import write_graph
from policies.bundle.runtime import Network
from sim.errors import UserError, unknown

Float32 = NDArray[np.float32]
NEVER = -1e6  # logit of a skill that is not chosen, neither greedily nor by drawing
BEHIND = 1.0  # nats


def skill_to_unfreeze(bundle: Bundle, name: str) -> int:
    """Returns the number of a skill that can be trained further.

    Raises:
        UserError: there is no such skill, or the skills are imported graphs.
    """
    skills = bundle.manifest.skills
    if name not in skills:
        raise unknown("skill", name, skills)
    if name in bundle.manifest.imported:
        raise UserError(
            f"skill {name!r} of bundle {bundle.label} is imported: its graph is run as "
            "it is and cannot be trained"
        )
    return skills.index(name)


def name_of_new_skill(bundle: Bundle) -> str:
    """Returns the name of the next skill.

    Raises:
        UserError: another skill has it.
    """
    skills = bundle.manifest.skills
    name = f"skill-{len(skills)}"
    if name in skills:
        raise UserError(
            f"bundle {bundle.label} has a skill {name!r} already, which would be the "
            "name of the new one"
        )
    return name


def with_derived_skill(bundle: Bundle, name: str, data: bytes, derivation: Derivation) -> Bundle:
    """Returns a bundle with one more skill, in memory: its golden rows and masters fit it.

    Args:
        bundle: its skill files stay byte-identical.
        name: of the new skill.
        data: its ONNX file.
        derivation: the skill that it is from, whose limits it gets.
    """
    old = bundle.manifest
    file = f"skills/{len(old.skills)}.onnx"
    masters = {m: with_unused_output(bundle.master(m), m) for m in old.masters}
    limits = dict(old.skill_limits)
    if derivation.skill in limits:
        limits[name] = limits[derivation.skill]
    files = {f: d for f, d in bundle.files.items() if f in old.files}
    files |= {file: data, **{f"masters/{m}.onnx": d for m, d in masters.items()}}
    golden = bundle.golden
    action = Network(data, file)(golden.observation)
    manifest = replace(
        old,
        skills=(*old.skills, name),
        skill_limits=limits,
        derived={**old.derived, name: derivation},
        files=dict.fromkeys(files, "0" * 64),  # filled in when it is written
    )
    whole = Golden(
        observation=golden.observation,
        action=np.concatenate([golden.action, action[None]]),
        logits={m: Network(d, m)(golden.observation) for m, d in masters.items()},
        skill=golden.skill,
    )
    return Bundle(manifest, files, whole, bundle.source)


def with_unused_output(data: bytes, name: str) -> bytes:
    """Returns a master's ONNX file with one more output that is never the largest."""
    return _with_head(data, name, None)


def with_moved_output(data: bytes, name: str, skill: int) -> bytes:
    """Returns a master's ONNX file whose output for a skill is the last one; its own is never."""
    return _with_head(data, name, skill)


def _with_head(data: bytes, name: str, moved: int | None) -> bytes:
    graph = read_graph(data, name)
    arrays, layers = graph.initializers, graph.layers
    weight, bias = layers[-1]
    order = np.arange(len(bias) + 1)
    unused = len(bias) if moved is None else moved
    weight = np.concatenate([weight, np.zeros_like(weight[:, :1])], axis=1)
    bias = np.append(bias, np.float32(NEVER))
    order[[unused, len(bias) - 1]] = [len(bias) - 1, unused]
    layers[-1] = weight[:, order], bias[order]
    clip = arrays["high"].item()
    return write_graph(name, arrays["shift"], arrays["scale"], clip, layers, graph.activation)


def with_reachable_outputs(
    arrays: Mapping[str, Float32], skills: Sequence[str], derived: Mapping[str, Derivation]
) -> dict[str, Float32]:
    """Returns weights of a master that can learn to choose copies of skills and their originals.

    Where a master never chooses one of a pair, no gradient tells what that would bring. It gets
    the output of the other one of the pair, lower by `BEHIND`: the greedy choice stays.

    Args:
        arrays: `weight0`, `bias0` and so on of the master's layers, and others.
        skills: names, in the order of its outputs.
        derived: of the copies, by name.
    """
    last = sum(key.startswith("bias") for key in arrays) - 1
    weight, bias = arrays[f"weight{last}"].copy(), arrays[f"bias{last}"].copy()
    pairs = [(skills.index(name), skills.index(each.skill)) for name, each in derived.items()]
    for copy, original in (*pairs, *reversed(pairs)):  # there are copies of copies
        for one, other in ((copy, original), (original, copy)):
            if bias[one] <= NEVER / 2 < bias[other]:
                weight[:, one], bias[one] = weight[:, other], bias[other] - BEHIND
    return {**arrays, f"weight{last}": weight, f"bias{last}": bias}
