"""`Bundle`: a folder or zip file with everything needed to run a hierarchical policy.

    manifest.json     description, interface of the robot, and the SHA-256 of every other file
    skills/0.onnx ..  the skills, shared by all tasks
    skills/weights-...  arrays that several skills have in common (`policies.bundle.storage`)
    masters/NAME.onnx one small head for each task
    golden.npz        recorded observations with the outputs of every network

Nothing in a bundle is executed or unpickled, and an invalid bundle is refused with the reason. Its
ROS topics are in the interface in manifest.json (`policies.bundle.manifest`).
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from policies.bundle.bundle_files import (
    MAX_MANIFEST_BYTES,
    Read,
    advice,
    bounded,
    opened,
    read_all,
)
from policies.bundle.golden import Golden, read_golden
from policies.bundle.imported_graph import check_imported
from policies.bundle.manifest import (
    GOLDEN,
    MANIFEST,
    Manifest,
    check_training,
    make_manifest,
    parse_manifest,
    sha256,
)
from policies.bundle.onnx_reader import check_network
from policies.bundle.storage import StoredFiles, write_folder
from policies.bundle.work import check_golden_work
from sim.errors import UserError, short, unknown
from sim.files.lookup import find
from sim.files.output import check_place
from sim.interface import Interface
from sim.interface.robot_file import robot_names

PRETRAINED = Path(__file__).parents[1] / "pretrained"


FINGERPRINT_DIGITS = 12  # hexadecimal ones of a digest


def fingerprint_of(digest: str) -> int:
    """First 48 bits of a hexadecimal digest, an integer that a float64 represents exactly.

    Raises:
        ValueError: it is not hexadecimal.
    """
    return int(digest[:FINGERPRINT_DIGITS], 16)


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
        """Fingerprint of the manifest's digest, see `fingerprint_of`."""
        return fingerprint_of(self.manifest.digest)

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
            ("derived", _origins(new), _origins(running)),
        ):
            if one != other:
                raise UserError(
                    f"bundle {self.source} cannot replace {old.source} while it runs: {what} "
                    f"{one} is not {other}"
                )

    @property
    def label(self) -> str:
        """Its name for errors, with its folder where that is called something else.

        Bundles that were made from one another have the same name.
        """
        name = self.manifest.name
        return repr(name) if self.source.stem == name else f"{name!r} ({self.source})"

    def skill_hashes(self) -> list[str]:
        """SHA-256 of every skill file."""
        return [self.manifest.files[name] for name in self.manifest.skill_files]


def _origins(manifest: Manifest) -> str:
    """The skill that each derived skill was trained from."""
    return ", ".join(f"{name} from {d.skill}" for name, d in manifest.derived.items()) or "none"


def pretrained_names() -> list[str]:
    """Bundles that ship with the package."""
    return sorted(path.parent.name for path in PRETRAINED.glob(f"*/{MANIFEST}"))


def _not_a_robot(name: str) -> str:
    return f"; {name!r} is a robot, without policies" if name in robot_names() else ""


def load_bundle(name: str | Path) -> Bundle:
    """Load a shipped bundle by name, or a bundle folder or zip file by path.

    Raises:
        UserError: the bundle is invalid; one line with the reason.
    """
    shipped = {each: PRETRAINED / each for each in pretrained_names()}
    also = f"; or the path of a folder or zip file that exists{_not_a_robot(str(name))}"
    path = name if isinstance(name, Path) else find("bundle", name, shipped, also)
    with opened(path) as (names, read):
        return _load(names, read, path)


def check_bundle(files: dict[str, bytes], source: Path) -> Bundle:
    """Run every check that needs no inference; `policies.bundle.runtime` replays golden rows.

    Raises:
        UserError: unknown schema; a file missing, extra or changed; a manifest, a graph or golden
            rows that are invalid.
    """
    return _load(list(files), lambda name, most: files[name][:most], source)


def _load(names: list[str], read: Read, source: Path) -> Bundle:
    """Read only the files that the manifest lists, and the weights that skills share."""
    if MANIFEST not in names:
        raise UserError(f"{source}: {MANIFEST} is missing; {advice(names, source)}")
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(f"{source}: {short(repeated[0])} is in it twice")
    text = bounded(read, MANIFEST, MAX_MANIFEST_BYTES, source)
    manifest = parse_manifest(text, source / MANIFEST)
    stored = StoredFiles(names, read, source)
    expected = _expected(manifest, stored.names, source)
    files = {MANIFEST: text}
    for name, data in read_all(stored.read, expected, source, len(text)):
        if sha256(data) != manifest.files[name]:
            raise UserError(f"{source}: file {name!r} is not the one that the manifest describes")
        files[name] = data
    stored.check_used()
    return _check_contents(manifest, files, source)


def _expected(manifest: Manifest, names: Sequence[str], source: Path) -> list[str]:
    """Names of the bundle's files besides its manifest; refuses missing and additional files."""
    listed = set(manifest.files)
    expected = {*manifest.skill_files, *(f"masters/{m}.onnx" for m in manifest.masters), GOLDEN}
    if wrong := sorted(listed ^ expected):
        raise UserError(
            f"{source}/{MANIFEST}: files lists {short(wrong[0])} or lacks it; see masters"
        )
    check_training(manifest, f"{source}/{MANIFEST}")
    if missing := sorted(expected - set(names)):
        raise UserError(f"{source}: file {missing[0]!r} is missing")
    if extra := sorted(set(names) - expected - {MANIFEST}):
        raise UserError(f"{source}: file {short(extra[0])} does not belong to the bundle")
    return sorted(expected)


def _check_contents(manifest: Manifest, files: dict[str, bytes], source: Path) -> Bundle:
    sizes = manifest.interface.observation_size, manifest.interface.action_size
    clips, work = {}, 0
    for skill, name in zip(manifest.skills, manifest.skill_files, strict=True):
        if skill in manifest.imported:
            own = check_imported(files[name], f"{source}/{name}", *sizes)
        else:
            clips[name], own = check_network(files[name], f"{source}/{name}", *sizes)
        work += own
    for name in manifest.masters:
        file = f"masters/{name}.onnx"
        clips[file], own = check_network(
            files[file], f"{source}/{file}", sizes[0], len(manifest.skills)
        )
        work += own
    # Golden rows need not reach the clip, so that another one would pass them.
    if len(set(clips.values())) > 1:
        raise UserError(
            f"{source}: the networks clip their observation differently: {short(clips, 250)}"
        )
    golden = read_golden(files[GOLDEN], manifest, f"{source}/{GOLDEN}")
    check_golden_work(work, len(golden.observation), f"{source}/{GOLDEN}")
    return Bundle(manifest, files, golden, source)


def write_bundle(
    manifest: Manifest, files: dict[str, bytes], path: Path, *, overwrite: bool = True
) -> Bundle:
    """Write a bundle folder; an existing one is replaced only when the new one is complete.

    Args:
        manifest: hashes and digest are filled in here.
        files: everything but the manifest.
        path: the folder.
        overwrite: whether an existing bundle may be replaced.

    Returns:
        The bundle as it was read back.

    Raises:
        UserError: it could not be written, or `path` is something other than a bundle, or a bundle
            that must not be replaced.
    """
    whole = make_manifest(manifest, files)
    text = json.dumps(whole.to_dict(), indent=1, sort_keys=True)
    contents = {**files, MANIFEST: text.encode()}
    check_target(path, overwrite=overwrite)
    check_bundle(contents, path)
    write_folder(contents, path)
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
