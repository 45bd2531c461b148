"""`Bundle`: a folder or zip file with everything needed to run a hierarchical policy.

    manifest.json     what it is, for which robot, and the SHA-256 of every other file
    skills/0.onnx ..  the skills, shared by all tasks
    masters/NAME.onnx one small head for each task
    golden.npz        recorded observations with the outputs of every network

Nothing here is ever executed or unpickled, and a bundle that does not hold is refused by name.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, RootModel, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass as checked
from typing_extensions import Self

from policies.bundle.imported_graph import check_imported
from policies.bundle.onnx_reader import read_graph
from policies.bundle.skill_limits import check_skill_limits
from sim.errors import UserError, invalid, short, unknown
from sim.files.arrays import open_zip, read_npz, read_piecewise
from sim.files.lookup import find
from sim.files.migrations import check_schema
from sim.files.output import check_place, replacing_folder
from sim.files.strict_json import parse_json
from sim.interface import STRICT, Interface, Label, Number, Ranges, Whole
from sim.interface.robot_file import robot_names
from sim.tasks.task_id import TaskId

PRETRAINED = Path(__file__).parents[1] / "pretrained"
MANIFEST, GOLDEN = "manifest.json", "golden.npz"
MAX_MANIFEST_BYTES = 2**20
MAX_FILE_BYTES = 16 * 2**20
MAX_BUNDLE_BYTES = 64 * 2**20
MAX_FILES = 1000
MAX_COUNT = 10**15  # of anything that is counted
Float32 = NDArray[np.float32]
NAME = r"[A-Za-z0-9][A-Za-z0-9_-]*"
Name = Annotated[str, Field(pattern=f"^{NAME}$", max_length=100)]
Task = Annotated[str, Field(pattern=f"^{NAME}/{NAME}$", max_length=200)]
Count = Annotated[int, Field(strict=True, ge=0, le=MAX_COUNT)]
Read = Callable[[str, int], bytes]  # of a file by name, so many bytes at most
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


@checked(frozen=True, config=STRICT)
class Score:
    """Score of a trained master, greedy, over `episodes` episodes."""

    value: Number  # mean return
    random: Number  # bounds of the task, as returns
    collapsed: Number
    optimum: Number
    episodes: Annotated[Count, Field(ge=1)]

    @model_validator(mode="after")
    def _has_a_scale(self) -> Self:
        if not self.random < self.optimum:
            raise ValueError(f"optimum {self.optimum} is not above random {self.random}")
        return self

    @property
    def normalized(self) -> float:
        """Normalized score: 0 for a random policy, 1 for the optimum."""
        return (self.value - self.random) / (self.optimum - self.random)


@checked(frozen=True, config=STRICT)
class Provenance:
    """Origin of the weights: the data needed to reproduce them."""

    command: str
    seed: Annotated[int, Field(strict=True, ge=-MAX_COUNT, le=MAX_COUNT)]
    steps: Count  # environment steps
    updates: Count
    config: dict[str, Any]
    versions: dict[str, str]
    commit: str | None


@checked(frozen=True, config=STRICT)
class Master:
    """One master of a bundle."""

    task: Task  # family/task
    score: Score
    provenance: Provenance

    @property
    def task_id(self) -> TaskId:
        """Identifier of the master's task."""
        return TaskId.parse(self.task)


@checked(frozen=True, config=STRICT)
class Family:
    """The task family that the skills were trained on."""

    name: Name
    parameters: dict[Label, Whole]


@checked(frozen=True, config=STRICT)
class Origin:
    """Origin of an imported skill."""

    license: str  # under which the policy may be used
    source: str  # where it comes from, and whose it is
    policy: Sha256  # of the ONNX file that was imported
    constants: dict[Label, tuple[Number, ...]]  # inputs of the policy that this skill holds


@checked(frozen=True, config=STRICT)
class Manifest:
    """The bundle's description, as in manifest.json."""

    schema: Literal[2]
    name: Name
    interface: Interface
    family: Family
    decision_ticks: Annotated[int, Field(strict=True, ge=1, le=100_000)]  # N
    decision_lead: Literal[0, 1]  # L
    # K; skill k is skills/k.onnx
    skills: Annotated[tuple[Name, ...], Field(min_length=1, max_length=MAX_FILES)]
    # Per skill and observation term, narrower than the interface's: who walks must stand upright.
    skill_limits: dict[Name, dict[Label, Ranges]]
    masters: dict[Name, Master]  # at least one, unless all skills are imported
    provenance: Provenance
    files: dict[str, Sha256]
    digest: Sha256  # of the manifest without this entry
    imported: dict[Name, Origin] = field(default_factory=dict)  # skills trained elsewhere

    @model_validator(mode="after")
    def _imported_or_with_a_master(self) -> Self:
        if wrong := [name for name in self.imported if name not in self.skills]:
            raise unknown("skill", wrong[0], self.skills)
        if not self.masters and len(self.imported) < len(self.skills):
            raise ValueError("masters: at least one is expected")
        return self

    @model_validator(mode="after")
    def _limits_name_what_there_is(self) -> Self:
        if len(set(self.skills)) < len(self.skills):
            raise ValueError(f"skills: a name is given twice: {', '.join(self.skills)}")
        check_skill_limits(self.skill_limits, self.skills, self.interface)
        return self

    @property
    def skill_files(self) -> tuple[str, ...]:
        """Names of the skills' files, in order."""
        return tuple(f"skills/{k}.onnx" for k in range(len(self.skills)))

    def to_dict(self) -> dict[str, Any]:
        """Plain data, floats in full precision."""
        data: dict[str, Any] = RootModel[Manifest](self).model_dump(mode="json")
        if not self.imported:  # a later key, which other bundles do not have
            del data["imported"]
        return data


@dataclass(frozen=True)
class Golden:
    """Recorded rows that every copy of the bundle must reproduce."""

    observation: Float32  # (n, O)
    action: Float32  # (K, n, A) of every skill
    logits: dict[str, Float32]  # per master (n, K)
    skill: dict[str, NDArray[np.int64]]  # per master (n,) the greedy choice


@dataclass(frozen=True)
class Bundle:
    """A bundle in memory, checked."""

    manifest: Manifest
    files: dict[str, bytes]
    golden: Golden
    source: Path

    @property
    def interface(self) -> Interface:
        """Interface that the robot must have."""
        return self.manifest.interface

    @property
    def fingerprint(self) -> int:
        """First 48 bits of the manifest's digest, an integer that a float64 represents exactly."""
        return int(self.manifest.digest[:12], 16)

    @property
    def skills(self) -> list[bytes]:
        """Contents of the skills' ONNX files, in order."""
        return [self.files[name] for name in self.manifest.skill_files]

    def master(self, name: str) -> bytes:
        """Content of a master's ONNX file.

        Raises:
            UserError: the bundle has no such master.
        """
        if name not in self.manifest.masters:
            raise unknown("master", name, self.manifest.masters)
        return self.files[f"masters/{name}.onnx"]

    def check_replaces(self, old: Bundle) -> None:
        """Refuse to replace another bundle while the robot moves.

        Raises:
            UserError: names what differs.
        """
        new, running = self.manifest, old.manifest
        for what, one, other in (
            ("interface", new.interface.digest[:12], running.interface.digest[:12]),
            ("decision_ticks", new.decision_ticks, running.decision_ticks),
            ("decision_lead", new.decision_lead, running.decision_lead),
            ("skills", ", ".join(new.skills), ", ".join(running.skills)),
            ("skill_limits", new.skill_limits, running.skill_limits),
        ):
            if one != other:
                raise UserError(
                    f"bundle {self.source} cannot replace {old.source} while it runs: {what} "
                    f"{one} is not {other}"
                )

    def skill_hashes(self) -> list[str]:
        """SHA-256 of every skill file."""
        return [self.manifest.files[name] for name in self.manifest.skill_files]


def skill_names(count: int) -> tuple[str, ...]:
    """Names of the skills of a new bundle."""
    return tuple(f"skill-{k}" for k in range(count))


def pretrained_names() -> list[str]:
    """Bundles that ship with the package."""
    return sorted(path.parent.name for path in PRETRAINED.glob(f"*/{MANIFEST}"))


def _not_a_robot(name: str) -> str:
    return f"; {name!r} is a robot, without policies" if name in robot_names() else ""


def load_bundle(name: str | Path) -> Bundle:
    """Load a shipped bundle by name, or a bundle folder or zip file by path.

    Raises:
        UserError: whatever does not hold, by name, in one line.
    """
    shipped = {each: PRETRAINED / each for each in pretrained_names()}
    path = name if isinstance(name, Path) else find("bundle", name, shipped, _not_a_robot(name))
    with _opened(path) as (names, read):
        return _load(names, read, path)


def read_files(path: Path) -> dict[str, bytes]:
    """The files of a bundle folder or zip file by name, unchecked but for their number and size.

    Raises:
        UserError: it is neither, or larger than a bundle may be.
    """
    with _opened(path) as (names, read):
        files: dict[str, bytes] = {}
        for name in names:
            files[name] = _bounded(read, name, MAX_FILE_BYTES, path)
            if sum(map(len, files.values())) > MAX_BUNDLE_BYTES:
                raise UserError(f"{path}: larger than {MAX_BUNDLE_BYTES} bytes, at {name!r}")
    if MANIFEST not in files:
        raise UserError(f"{path}: {MANIFEST} is missing; {_advice(names, path)}")
    return files


@contextmanager
def _opened(path: Path) -> Iterator[tuple[list[str], Read]]:
    """The names of the files of a bundle folder or zip file, and what reads one of them."""
    if path.is_dir():
        yield _folder(path), partial(_read_file, path)
        return
    if not path.is_file():
        raise UserError(f"{path}: neither a folder nor a zip file")
    with ExitStack() as stack:
        with _archive_errors(path):
            stream = stack.enter_context(path.open("rb"))
            archive = stack.enter_context(open_zip(stream))
        yield _zipped(archive, path), partial(_read_entry, archive, path)


def check_bundle(files: dict[str, bytes], source: Path) -> Bundle:
    """Run every check that needs no inference; `policies.bundle.runtime` replays golden rows.

    Raises:
        UserError: unknown schema; a file missing, extra or changed; a manifest, a graph or golden
            rows that do not hold.
    """
    return _load(list(files), lambda name, most: files[name][:most], source)


def _load(names: list[str], read: Read, source: Path) -> Bundle:
    """Read only the files that the manifest lists."""
    if MANIFEST not in names:
        raise UserError(f"{source}: {MANIFEST} is missing; {_advice(names, source)}")
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(f"{source}: {short(repeated[0])} is in it twice")
    text = _bounded(read, MANIFEST, MAX_MANIFEST_BYTES, source)
    manifest = _parse_manifest(text, source / MANIFEST)
    files, size = {MANIFEST: text}, len(text)
    for name in _expected(manifest, names, source):
        files[name] = _bounded(read, name, MAX_FILE_BYTES, source)
        if (size := size + len(files[name])) > MAX_BUNDLE_BYTES:
            raise UserError(f"{source}: larger than {MAX_BUNDLE_BYTES} bytes, at {name!r}")
        if sha256(files[name]) != manifest.files[name]:
            raise UserError(f"{source}: file {name!r} is not the one that the manifest describes")
    return _check_contents(manifest, files, source)


def _expected(manifest: Manifest, names: Sequence[str], source: Path) -> list[str]:
    """Names of the bundle's files besides its manifest; refuses missing and additional files."""
    listed = set(manifest.files)
    expected = {*manifest.skill_files, *(f"masters/{m}.onnx" for m in manifest.masters), GOLDEN}
    if wrong := sorted(listed ^ expected):
        raise UserError(
            f"{source}/{MANIFEST}: files lists {short(wrong[0])} or lacks it; see masters"
        )
    _check_training(manifest, f"{source}/{MANIFEST}")
    if missing := sorted(expected - set(names)):
        raise UserError(f"{source}: file {missing[0]!r} is missing")
    if extra := sorted(set(names) - expected - {MANIFEST}):
        raise UserError(f"{source}: file {short(extra[0])} does not belong to the bundle")
    return sorted(expected)


def _check_contents(manifest: Manifest, files: dict[str, bytes], source: Path) -> Bundle:
    sizes = manifest.interface.observation_size, manifest.interface.action_size
    clips = {}
    for skill, name in zip(manifest.skills, manifest.skill_files, strict=True):
        if skill in manifest.imported:
            check_imported(files[name], f"{source}/{name}", *sizes)
        else:
            clips[name] = _check_graph(files[name], f"{source}/{name}", *sizes)
    for name in manifest.masters:
        file = f"masters/{name}.onnx"
        clips[file] = _check_graph(files[file], f"{source}/{file}", sizes[0], len(manifest.skills))
    # Golden rows need not reach the clip, so that another one would pass them.
    if len(set(clips.values())) > 1:
        raise UserError(
            f"{source}: the networks clip their observation differently: {short(clips, 250)}"
        )
    golden = _read_golden(files[GOLDEN], manifest, f"{source}/{GOLDEN}")
    return Bundle(manifest, files, golden, source)


def make_manifest(manifest: Manifest, files: dict[str, bytes]) -> Manifest:
    """The manifest with the hashes of `files` and its own digest filled in."""
    listed = replace(manifest, files={name: sha256(data) for name, data in sorted(files.items())})
    return replace(listed, digest=digest_of(listed.to_dict()))


def write_bundle(manifest: Manifest, files: dict[str, bytes], path: Path) -> Bundle:
    """Write a bundle folder; an existing one is replaced only when the new one is complete.

    Args:
        manifest: hashes and digest are filled in here.
        files: everything but the manifest.
        path: the folder.

    Returns:
        The bundle as it was read back.

    Raises:
        UserError: it could not be written, or `path` is something other than a bundle.
    """
    whole = make_manifest(manifest, files)
    text = json.dumps(whole.to_dict(), indent=1, sort_keys=True)
    contents = {**files, MANIFEST: text.encode()}
    check_target(path)
    check_bundle(contents, path)
    with replacing_folder(path, overwrite=True) as fresh:
        for name, data in contents.items():
            (fresh / name).parent.mkdir(exist_ok=True)
            (fresh / name).write_bytes(data)
    return load_bundle(path)


def check_target(path: Path, *, overwrite: bool = True, continued: Manifest | None = None) -> None:
    """Refuse a path at which writing a bundle would lose data.

    Args:
        path: folder of the new bundle.
        overwrite: whether an existing bundle may be replaced.
        continued: manifest of a bundle that the new one contains; it may be replaced in any case.

    Raises:
        UserError: the path is not a valid bundle, or it is a bundle that must not be replaced.
    """
    try:
        check_place(path, folder=True, overwrite=True)
        if not path.exists():
            return
        there = load_bundle(path)
    except UserError as error:
        if not os.path.lexists(path):
            raise
        raise UserError(
            f"{path} exists and is not a bundle, so nothing was written; give another path "
            f"or remove it ({error})"
        ) from None
    if not overwrite and (continued is None or there.manifest.digest != continued.digest):
        raise UserError(
            f"{path} has another bundle already; give another --output, or --overwrite to "
            "replace it"
        )


def check_name(kind: str, name: str) -> None:
    """Refuse a name that a manifest cannot have.

    Raises:
        UserError: it is made of something other than letters, digits, - and _.
    """
    if not re.fullmatch(NAME, name):
        raise UserError(f"{kind} name {name!r}: letters, digits, - and _ are accepted")


def sha256(data: bytes) -> str:
    """Hexadecimal SHA-256."""
    return hashlib.sha256(data).hexdigest()


def golden_bytes(golden: Golden) -> bytes:
    """Content of golden.npz."""
    arrays: dict[str, Any] = {"observation": golden.observation, "action": golden.action}
    arrays |= {f"logits.{name}": value for name, value in golden.logits.items()}
    arrays |= {f"skill.{name}": value for name, value in golden.skill.items()}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def digest_of(data: dict[str, Any]) -> str:
    """SHA-256 of a manifest as plain data, without its own entry."""
    rest = {key: value for key, value in data.items() if key != "digest"}
    return sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode())


def _parse_manifest(data: bytes, where: Path) -> Manifest:
    raw = parse_json(data, where)
    check_schema(raw if isinstance(raw, dict) else {}, MANIFEST, where, where.parent)
    try:
        manifest = TypeAdapter(Manifest).validate_python(raw)
    except ValidationError as error:
        raise invalid(str(where), error) from None
    if digest_of(raw) != manifest.digest:
        raise UserError(f"{where}: was changed after it was written (its digest does not match)")
    return manifest


def _check_training(manifest: Manifest, where: str) -> None:
    """Check the recorded configurations for N, L and the task, which golden rows lack."""
    method = {
        "skills": len(manifest.skills),
        "decision_ticks": manifest.decision_ticks,
        "decision_lead": manifest.decision_lead,
    }
    own: dict[str, Any] = {
        "family": manifest.family.name,
        "family_parameters": manifest.family.parameters,
    }
    stated = [("provenance", manifest.provenance, own)]
    for name, master in manifest.masters.items():
        family: dict[str, Any] = {"family": master.task_id.family}
        stated.append((f"masters.{name}.provenance", master.provenance, family))
    for key, provenance, top in stated:
        config = provenance.config
        for part, values in ((config, top), (config.get("mlsh"), method)):
            for name, value in values.items():
                recorded = part.get(name, value) if isinstance(part, dict) else value
                if recorded != value:
                    raise UserError(
                        f"{where}: says {name} {short(value)}, but {key} was trained with "
                        f"{short(recorded)}"
                    )


def _check_graph(data: bytes, where: str, inputs: int, outputs: int) -> float:
    """Refuse a graph whose weights have inconsistent shapes; returns its observation clip."""
    graph = read_graph(data, where)
    layers = sum(name.startswith("weight") for name in graph.initializers)
    try:
        shift, scale = graph.initializers["shift"], graph.initializers["scale"]
        low, high = graph.initializers["low"], graph.initializers["high"]
        weights = [graph.initializers[f"weight{i}"] for i in range(layers)]
        biases = [graph.initializers[f"bias{i}"] for i in range(layers)]
    except KeyError as error:
        raise UserError(f"{where}: weights {error} are missing") from None
    size, largest = inputs, float(high.max(initial=0))
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        if weight.ndim != 2 or weight.shape[0] != size or bias.shape != weight.shape[1:]:
            raise UserError(
                f"{where}: layer {i} has weights {weight.shape} and biases {bias.shape} "
                f"for {size} inputs"
            )
        size = weight.shape[1]
        # However the sum is ordered, no part of it is larger.
        reach = largest * np.abs(weight, dtype=np.float64).sum(axis=0) + np.abs(bias)
        if (worst := float(reach.max(initial=0))) > float(np.finfo(np.float32).max):
            raise UserError(
                f"{where}: layer {i} can reach {worst:.2g}, which is no float32: its output would "
                "not be finite"
            )
        largest = 1.0 if graph.operators.count("Tanh") >= layers - 1 else worst
    if shift.shape != (inputs,) or scale.shape != (inputs,) or size != outputs:
        raise UserError(
            f"{where}: {shift.size} inputs and {size} outputs, not {inputs} and {outputs}"
        )
    if more := len(graph.initializers) - 4 - 2 * layers:
        raise UserError(f"{where}: {more} weights belong to no layer")
    if low.size != 1 or high.size != 1 or not low.item() == -high.item() < 0:
        raise UserError(f"{where}: observations are clipped to {low} .. {high}, not to -c .. c")
    return float(high.item())


def _read_golden(data: bytes, manifest: Manifest, where: str) -> Golden:
    try:
        arrays: dict[str, NDArray[Any]] = dict(read_npz(io.BytesIO(data), MAX_FILE_BYTES))
    except ValueError as error:
        raise UserError(f"{where}: not readable ({error})") from None
    k, o = len(manifest.skills), manifest.interface.observation_size
    n = len(np.atleast_1d(arrays.get("observation", np.zeros(0))))
    expected: dict[str, tuple[tuple[int, ...], type]] = {
        "observation": ((n, o), np.float32),
        "action": ((k, n, manifest.interface.action_size), np.float32),
        **{f"logits.{name}": ((n, k), np.float32) for name in manifest.masters},
        **{f"skill.{name}": ((n,), np.int64) for name in manifest.masters},
    }
    if wrong := sorted(set(arrays) ^ set(expected)):
        raise UserError(f"{where}: array {short(wrong[0])} is missing or does not belong there")
    for name, (shape, kind) in expected.items():
        array = arrays[name]
        if array.shape != shape or array.dtype != kind or n == 0:
            raise UserError(
                f"{where}: array {name!r} is {array.shape} {array.dtype}, "
                f"not {shape} {np.dtype(kind)} with at least one row"
            )
        if not np.isfinite(array).all():
            raise UserError(f"{where}: array {name!r} is not finite")
    return Golden(
        observation=arrays["observation"],
        action=arrays["action"],
        logits={name: arrays[f"logits.{name}"] for name in manifest.masters},
        skill={name: arrays[f"skill.{name}"] for name in manifest.masters},
    )


def _bounded(read: Read, name: str, most: int, source: Path) -> bytes:
    data = read(name, most + 1)  # a declared size may lie
    if len(data) > most:
        raise UserError(f"{source}: {name!r} is larger than {most} bytes")
    return data


def _advice(names: Sequence[str], source: Path) -> str:
    """Suggests the correct path where the manifest is in a subfolder."""
    inside = sorted(name[: -len(MANIFEST) - 1] for name in names if name.endswith(f"/{MANIFEST}"))
    if not inside:
        return "this is not a bundle"
    if source.is_dir():
        return f"the bundle is {source / inside[0]}"
    return (
        f"the bundle is in its folder {short(inside[0])}. Unpack it and give that folder, or zip "
        "what is in the folder, not the folder: cd FOLDER && zip -r ../NAME.zip ."
    )


def _folder(path: Path) -> list[str]:
    """Names of the files in a folder; refuses links and devices."""
    if not (path / MANIFEST).is_file():  # before everything below some wrong folder is looked at
        near = [f"{each.parent.name}/{MANIFEST}" for each in islice(path.glob(f"*/{MANIFEST}"), 1)]
        raise UserError(f"{path}: {MANIFEST} is missing; {_advice(near, path)}")
    names: list[str] = []
    folders = [path]
    for folder in folders:
        for each in _entries(folder, path):
            name = Path(each.path).relative_to(path).as_posix()
            if each.is_dir(follow_symlinks=False):
                folders.append(Path(each.path))
            elif each.is_file(follow_symlinks=False):
                names.append(name)
            else:
                raise UserError(
                    f"{path}: {name!r} is a link or device; a bundle has plain files only"
                )
            _check_count(path, max(len(names), len(folders)))
    return sorted(names)


def _entries(folder: Path, path: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(islice(entries, MAX_FILES + 1))
    except OSError as error:
        raise UserError(f"{path}: {folder} is not readable ({error.strerror})") from None


def _read_file(path: Path, name: str, most: int) -> bytes:
    try:
        with (path / name).open("rb") as stream:
            return stream.read(most)
    except OSError as error:
        raise UserError(f"{path}: {name!r} is not readable ({error.strerror})") from None


def _zipped(archive: zipfile.ZipFile, path: Path) -> list[str]:
    names = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
    _check_count(path, len(names))
    return names


def _read_entry(archive: zipfile.ZipFile, path: Path, name: str, most: int) -> bytes:
    with _archive_errors(path), archive.open(name) as stream:
        return read_piecewise(stream, most)


@contextmanager
def _archive_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # whatever zipfile meets in an archive that is damaged or hostile
        raise UserError(f"{path}: not a readable zip file ({short(str(error))})") from None


def _check_count(path: Path, count: int) -> None:
    if count > MAX_FILES:
        raise UserError(f"{path}: more than {MAX_FILES} files")
