"""Mutates files as a stranger might send them: `python -m tests.support.fuzz --seconds 600`.

The law: whatever comes, it is read, or refused by a UserError of one line that can be seen, within
two seconds of the processor and 500 MB more of memory. Any other exception is a finding. Every
input follows from a target's name and a number, so that a finding is repeated with --first.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).parents[2]))

from mlsh_ros.bringup.graphs import ROBOT, SIM
from mlsh_ros.bringup.params_file import check_params_file, overrides_from_file
from policies.bundle.bundle import PRETRAINED, load_bundle
from policies.bundle.bundle_files import MAX_MANIFEST_BYTES, bounded
from policies.bundle.imported_graph import check_imported
from policies.bundle.manifest import MANIFEST, digest_of, parse_manifest, sha256
from policies.bundle.onnx_reader import read_graph
from policies.bundle.runtime import load_master, load_skills
from policies.bundle.skill_limits import read_skill_limits
from policies.bundle.storage import whole
from policies.mlsh.config import read_config
from policies.mlsh.presets import preset
from policies.skill_import import importer
from policies.skill_import.description import LeappDescription, read_description
from policies.skill_import.leapp import translate
from policies.skill_import.leapp_file import read_leapp
from sim.errors import UserError
from sim.files.migrations import SCHEMA
from sim.files.strict_yaml import dump_yaml
from sim.interface import interface_from_dict
from sim.interface.robot_file import ROBOTS, read_interface
from sim.randomization.schema import check_sim_params, read_sim_params
from tests.support.leapp import SKILLS, document
from tests.support.leapp_export import TASK

SECONDS, MEGABYTES, LONGEST = 2.0, 500.0, 400
FOREIGN = Path(__file__).parent / "foreign_policies"
PATIENCE = 20  # s after which an input counts as one that never ends
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
NUMBERS: list[Any] = [
    *(0, -1, 1, 2, 10**9, 2**31, 2**63, 2**64, -(2**63), 10**18, 10**30, 10**400),
    *(0.0, -0.0, 1e-300, 5e-324, 1e-12, 0.1, 1e9, 1e30, 1e308, -1e308),
    *(float("inf"), float("-inf"), float("nan"), True, False, None),
]
TEXTS = [
    *("", " ", "a b", "x" * 1000, "x" * 100_000, "\n", "a\nb", "\x1b[31m", "[/x]", "[red]", "<b>"),
    *("\u202e", "\ud800", "\0", "../x", "/x", "~", "a[0]", "a[b", "a.b.c", "1", "1e6", "0x10"),
    *("null", "true", "no", "2020-13-45", "12:30:40", "0:0.1", "estop", "cmd_vel", "clock", "a-b"),
    *("skill_node/arm", "std_msgs/msg/Float64", "this/msg/Zen", "{}", "%s", "${x}", "$x$", "\\"),
]
TOKENS = [
    *(
        b"[",
        b"]",
        b"{",
        b"}",
        b":",
        b",",
        b"\n",
        b"\t",
        b"&a ",
        b"*a",
        b"!!binary ",
        b"!!python/x ",
    ),
    *(b"? ", b"- ", b"| ", b"> ", b"#", b"%", b"@", b"`", b'"', b"'", b"\\", b"---\n", b"...\n"),
    *(b"NaN", b"Infinity", b"1e999", b"0x" + b"f" * 100, b"9" * 5000, b"2020-13-45", b"<<: "),
    *(b"\x00", b"\xff", b"\xff\xfe", b"\xef\xbb\xbf", b"\x1b[31m", b"[" * 2000, b"{" * 2000),
    *(b"a: 1\n" * 2000, b"1," * 30_000, b"PK\x03\x04", b"PK\x05\x06", b"\x80" * 20, b"\x93NUMPY"),
]


class Hung(BaseException):
    """An input that was given up."""


@dataclass(frozen=True)
class Target:
    """A kind of file, whole ones of it, and who reads it."""

    seeds: list[bytes]
    change: Callable[[bytes, random.Random], bytes]
    read: Callable[[Path], object]
    suffix: str
    seconds: float = SECONDS  # of the processor that reading one may take


# Changes --------------------------------------------------------------------------------


def raw(data: bytes, rng: random.Random) -> bytes:
    """A few bytes other, away, more, twice, or something that parsers fear."""
    text = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        at, length = rng.randrange(len(text) + 1), rng.choice((1, 2, 8, 64, 1024))
        kind = rng.randrange(6)
        if kind == 0 and at < len(text):
            text[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del text[at : at + length]
        elif kind == 2:
            text[at:at] = rng.choice(TOKENS)
        elif kind == 3:
            text[at : at + length] = rng.randbytes(length)
        elif kind == 4:
            text[at:at] = text[at : at + length] * rng.choice((1, 2, 50))
        else:
            del text[at:]
    return bytes(text)


def value(rng: random.Random, near: Any) -> Any:
    """Something that may stand where `near` stands, or not."""
    kind = rng.randrange(8)
    if kind < 3:
        return rng.choice(NUMBERS)
    if kind < 5:
        return rng.choice(TEXTS)
    if kind == 5:
        return rng.choice(([], {}, [near], {"a": near}, [near] * 50, [[1, 2]] * 10, [None]))
    if kind == 6 and isinstance(near, (int, float)) and not isinstance(near, bool):
        return rng.choice((-near, near * 2, near / 3, near + 1, str(near), int(near)))
    if isinstance(near, str):
        return rng.choice((near + "\n", near * 2, near.upper(), near + rng.choice(TEXTS)))
    return rng.choice(NUMBERS)


def places(data: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in it."""
    found: list[tuple[Any, Any]] = []
    waiting = [data]
    while waiting:
        each = waiting.pop()
        keys = list(each) if isinstance(each, dict) else range(len(each))
        for key in keys:
            found.append((each, key))
            if isinstance(each[key], (dict, list)):
                waiting.append(each[key])
    return found


def structured(data: Any, rng: random.Random) -> Any:
    """Plain data with a few values other, away, more, or under another key."""
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        found = places(data)
        if not found:
            return data
        holder, key = rng.choice(found)
        kind = rng.randrange(6)
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, dict):
            holder[rng.choice(TEXTS)] = holder.pop(key)
        elif kind == 2:
            other, of = rng.choice(found)
            holder[key] = json.loads(json.dumps(other[of])) if of in _keys(other) else 0
        elif kind == 3 and isinstance(holder, list):
            holder.extend([holder[key]] * rng.choice((1, 3, 200)))
        else:
            holder[key] = value(rng, holder[key])
    return data


def _keys(holder: Any) -> Any:
    return holder if isinstance(holder, dict) else range(len(holder))


def yaml_change(data: bytes, rng: random.Random) -> bytes:
    """As text or as data."""
    if rng.random() < 0.4:
        return raw(data, rng)
    changed = structured(yaml.load(data, LOADER), rng)
    return yaml.dump(changed, Dumper=DUMPER, allow_unicode=True).encode("utf-8", "surrogatepass")


def json_change(data: bytes, rng: random.Random) -> bytes:
    """As text, or as data with its digest repaired, as by somebody who knows the format."""
    if rng.random() < 0.25:
        return raw(data, rng)
    changed = structured(json.loads(data), rng)
    if isinstance(changed, dict) and rng.random() < 0.95:
        changed["digest"] = digest_of(changed)
    return json.dumps(changed).encode("utf-8", "surrogatepass")


def protobuf_change(data: bytes, rng: random.Random) -> bytes:
    """As bytes; often of the graph's head, where everything is named."""
    if rng.random() < 0.5:
        return raw(data, rng)
    head = rng.choice((20, 100, 400))
    return raw(data[:head], rng) + data[head:]


def zip_change(data: bytes, rng: random.Random) -> bytes:
    """The archive's own bytes, or a file in it, with the manifest's hashes repaired."""
    if rng.random() < 0.4:
        return raw(data, rng)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice(sorted(files))
    change = json_change if name == MANIFEST else protobuf_change
    kind = rng.randrange(10)
    if kind == 0:
        del files[name]
    elif kind == 1:
        files[rng.choice((*TEXTS[1:12], f"x/{name}", name + "x"))] = files[name]
    elif kind == 2:
        files[name] = bytes(rng.choice((0, 1, 2**20, 2**26)))
    elif kind == 3 and name.endswith(".npz"):
        files[name] = zip_change(files[name], rng) if rng.random() < 0.5 else raw(files[name], rng)
    else:
        files[name] = change(files[name], rng)
    return packed(repaired(files) if rng.random() < 0.9 else files, rng)


def repaired(files: dict[str, bytes]) -> dict[str, bytes]:
    """With hashes and digest that hold."""
    try:
        manifest = json.loads(files[MANIFEST])
        listed = {name: sha256(data) for name, data in files.items() if name != MANIFEST}
        manifest["files"] = listed
        manifest["digest"] = digest_of(manifest)
        return {**files, MANIFEST: json.dumps(manifest).encode("utf-8", "surrogatepass")}
    except (KeyError, ValueError, TypeError, RecursionError):
        return files


def packed(files: dict[str, bytes], rng: random.Random) -> bytes:
    """A zip of them."""
    buffer = io.BytesIO()
    method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2))
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name.replace("\ud800", "?").replace("\0", "?"), data)
    return buffer.getvalue()


# Targets --------------------------------------------------------------------------------


def targets() -> dict[str, Target]:
    """By name."""
    bundles = sorted(path.parent for path in PRETRAINED.glob(f"*/{MANIFEST}"))
    graphs = [path.read_bytes() for path in sorted(PRETRAINED.glob("moving_bandits/*/*.onnx"))]
    zips = [zipped(folder) for folder in bundles if folder.name in ("moving_bandits", "rooms")]
    robots = [path.read_bytes() for path in sorted(ROBOTS.glob("*/robot.yaml"))]
    example = Path(__file__).parents[2] / "config" / "params.example.yaml"
    whole = load_bundle(bundles[0].name)
    interface = whole.interface
    skills = whole.manifest.skills
    limits = {skills[0]: {interface.observation[0].name: [-0.1, 0.1]}}
    config = preset("default", "moving_bandits", "omni")
    return {
        "robot.yaml": Target(robots, yaml_change, read_robot, ".yaml"),
        "manifest.json": Target(
            [(folder / MANIFEST).read_bytes() for folder in bundles],
            json_change,
            read_manifest,
            ".json",
        ),
        "onnx": Target(graphs, protobuf_change, read_onnx, ".onnx"),
        "zip": Target(zips, zip_change, read_zip, ".zip"),
        "shared weights": Target(
            [path.read_bytes() for path in sorted(PRETRAINED.glob("go2_walk/skills/*.onnx"))],
            protobuf_change,
            read_stored_skill,
            ".onnx",
        ),
        "params": Target([example.read_bytes(), PARAMS], yaml_change, read_params, ".yaml"),
        "sim_params": Target(
            [p.read_bytes() for p in sorted(ROBOTS.glob("*/sim_params/*.yaml"))],
            yaml_change,
            lambda path: check_sim_params(read_sim_params(path), interface, str(path)),
            ".yaml",
        ),
        "config": Target([dump_yaml(_plain(config)).encode()], yaml_change, read_config, ".yaml"),
        "skill limits": Target(
            [dump_yaml(limits).encode()],
            yaml_change,
            lambda path: read_skill_limits(path, skills, interface),
            ".yaml",
        ),
        "setting": Target(
            [b"mlsh.groups=20", b"family_parameters.radius=0.3", b"network.hidden=[32, 32]"],
            raw,
            lambda path: config.with_values([path.read_bytes().decode(errors="replace")]),
            ".txt",
        ),
        "description": Target(
            [path.read_bytes() for path in sorted(FOREIGN.glob("*.yaml"))],
            yaml_change,
            read_description,
            ".yaml",
        ),
        "LEAPP": Target(
            [path.read_bytes() for path in sorted(FOREIGN.glob("leapp/*/*.yaml"))],
            yaml_change,
            read_exported,
            ".yaml",
        ),
        "LEAPP ONNX": Target(
            [path.read_bytes() for path in sorted(FOREIGN.glob("leapp/*/*.onnx"))],
            protobuf_change,
            read_policy_of_leapp,
            ".onnx",
        ),
    }


GO2 = 54, 12  # observations and actions of the robot `go2`
PARAMS = b"""/**: {ros__parameters: {use_sim_time: false}}
/**/skill_node: {ros__parameters: {max_late_decisions: 5, estop: true, bundle: rooms}}
bot1: {sim_node: {ros__parameters: {seed: 3}}}
"""


def _plain(config: Any) -> Any:
    from policies.mlsh.config import config_to_dict

    return {"schema": SCHEMA, **config_to_dict(config)}


def zipped(folder: Path) -> bytes:
    """A bundle's folder as a zip file."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}
    return packed(files, random.Random(0))


def read_robot(path: Path) -> None:
    """And everything that is computed from it."""
    interface = read_interface(path)
    _ = interface.digest, interface.observation_names, interface.limits, interface.substeps


def read_manifest(path: Path) -> None:
    """Of a bundle that has nothing else."""
    with path.open("rb") as stream:
        text = bounded(lambda _, most: stream.read(most), MANIFEST, MAX_MANIFEST_BYTES, path)
    manifest = parse_manifest(text, path)
    _ = manifest.to_dict(), manifest.interface.digest
    interface_from_dict(manifest.to_dict()["interface"], str(path))
    _ = [master.score.normalized for master in manifest.masters.values()]


def read_onnx(path: Path) -> None:
    """A graph."""
    read_graph(path.read_bytes(), str(path))


def read_stored_skill(path: Path) -> None:
    """A skill of the Go2, with its weights in a file beside it."""
    (weights,) = PRETRAINED.glob("go2_walk/skills/*.bin")
    files = {"skills/0.onnx": path.read_bytes(), f"skills/{weights.name}": weights.read_bytes()}
    check_imported(whole(files, path)["skills/0.onnx"], str(path), *GO2)


def read_zip(path: Path) -> None:
    """A bundle, and what `mlsh check-bundle` does with it."""
    bundle = load_bundle(path)
    load_skills(bundle)
    for name in bundle.manifest.masters:
        load_master(bundle, name)


def read_exported(path: Path) -> None:
    """LEAPP's YAML, with its names and what it feeds back."""
    leapp = read_leapp(path)
    leapp.feedback()
    _ = leapp.model_path
    for tensor in (*leapp.model.inputs, *leapp.model.outputs):
        if tensor.element_names is not None:
            tensor.names(str(path))


def read_policy_of_leapp(path: Path) -> None:
    """An ONNX file beside a YAML that is of it, up to its skills."""
    data = document(
        "go2_orientation" if b"robot_root_quat_w" in path.read_bytes() else "go2_gravity"
    )
    data["models"][TASK]["parameters"] |= {
        "model_path": path.name,
        "sha256sum": sha256(path.read_bytes()),
    }
    del data["pipeline"]["initial_values"]
    (path.parent / "leapp.yaml").write_text(dump_yaml(data))
    given = LeappDescription("leapp.yaml", "MIT", "a test", SKILLS)
    interface = read_interface(ROBOTS / "go2" / "robot.yaml")
    list(importer._skills(translate(given, path, interface), interface))


def read_params(path: Path) -> None:
    """A parameter file, for both graphs."""
    for graph in (SIM, ROBOT):
        for namespace in ("", "bot1"):
            values = graph.resolve({"namespace": namespace})
            overrides_from_file(str(path), namespace)
            check_params_file(str(path), namespace, graph._fixed(values))


# The law --------------------------------------------------------------------------------


def judge(target: Target, path: Path) -> str:
    """What is wrong with how a file was taken; empty: nothing."""
    before, began = peak(), time.process_time()
    try:
        with patience(PATIENCE):
            target.read(path)
        said = ""
    except UserError as error:
        said = str(error)
    except Hung:
        return f"no end within {PATIENCE} s"
    except Exception:
        return traceback.format_exc()
    seconds, more = time.process_time() - began, peak() - before
    if seconds > target.seconds:
        return f"{seconds:.1f} s: {said[:100]}"
    if more > MEGABYTES:
        return f"{more:.0f} MB: {said[:100]}"
    if not said.isprintable():
        return f"not one line that can be seen: {said!r}"
    if len(said) - len(str(path)) * said.count(str(path)) > LONGEST:
        return f"{len(said)} characters: {said}"
    return ""


def peak() -> float:
    """MB of memory that this process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@contextmanager
def patience(seconds: int) -> Iterator[None]:
    """Ends what is in it after so long."""

    def give_up(*_: object) -> None:
        raise Hung

    previous = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def made(name: str, target: Target, number: int) -> bytes:
    """The input of that number."""
    rng = random.Random(f"{name}/{number}")
    return target.change(rng.choice(target.seeds), rng)


def fuzz(name: str, target: Target, seconds: float, first: int, folder: Path) -> int:
    """Try inputs until the time is over; the number of findings, each kept in a file."""
    findings = count = 0
    path = folder / f"input{target.suffix}"
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        number = first + count
        count += 1
        try:
            data = made(name, target, number)
        except Exception:  # the change itself could not be written down
            continue
        path.write_bytes(data)
        if wrong := judge(target, path):
            findings += 1
            kept = folder / f"{name.replace(' ', '_')}-{number}{target.suffix}"
            path.rename(kept)
            print(f"{name} {number}: {kept}\n{wrong}", flush=True)
    print(f"{name}: {count} inputs from number {first}, {findings} findings", flush=True)
    return findings


def main(known: dict[str, Target]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", help=f"of {', '.join(known)}; default: all")
    parser.add_argument("--seconds", type=float, default=600, help="for each target")
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    given = parser.parse_args()
    if unknown := set(given.targets) - set(known):
        parser.error(f"no target {sorted(unknown)[0]!r}. Valid: {', '.join(known)}")
    folder = Path(tempfile.mkdtemp(prefix="mlsh-fuzz-"))
    print(f"findings are kept in {folder}")
    return min(
        1,
        sum(
            fuzz(name, known[name], given.seconds, given.first, folder)
            for name in given.targets or known
        ),
    )


if __name__ == "__main__":
    sys.exit(main(targets()))
