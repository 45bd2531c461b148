"""Bundles of an earlier schema: the same networks, described with the names of this one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from policies.bundle.bundle import Bundle, check_bundle
from policies.bundle.export import make_golden
from policies.bundle.golden import golden_bytes
from policies.bundle.manifest import GOLDEN, MANIFEST, Manifest, digest_of, make_manifest, sha256
from policies.bundle.runtime import load_master, load_skills
from sim.errors import UserError, validated
from sim.files.migrations import CHANGES, SCHEMA, is_earlier, rename
from sim.files.strict_json import parse_json


def is_current(files: dict[str, bytes], source: Path) -> bool:
    """True if the manifest has neither the earlier schema nor its names.

    Raises:
        UserError: the manifest is no JSON.
    """
    data = parse_json(files[MANIFEST], source / MANIFEST)
    return not (isinstance(data, dict) and is_earlier(data, MANIFEST))


def converted(files: dict[str, bytes], source: Path) -> dict[str, bytes]:
    """The files of a bundle in this schema: the networks as they are, the rest made again.

    The networks have to reproduce the golden rows of the old bundle, and then their own.

    Raises:
        UserError: the old bundle is damaged, or its networks do not reproduce its golden rows.
    """
    old = parse_json(files[MANIFEST], source / MANIFEST)
    listed = _check_whole(old, files, source)
    data = rename(old, CHANGES[MANIFEST], source / MANIFEST) | {"schema": SCHEMA}
    manifest = validated(TypeAdapter(Manifest), data, source / MANIFEST)
    bundle = _described(manifest, listed, source)
    skills = {name: listed[name] for name in manifest.skill_files}
    masters = {f"masters/{name}.onnx": bundle.master(name) for name in manifest.masters}
    golden = make_golden(bundle.golden.observation, skills, masters)
    # The bytes of the same rows depend on the version of Python.
    rows = listed[GOLDEN] if golden.equals(bundle.golden) else golden_bytes(golden)
    return _described(manifest, {**listed, GOLDEN: rows}, source).files


def _check_whole(old: Any, files: dict[str, bytes], source: Path) -> dict[str, bytes]:
    """The files besides the manifest, all as the old manifest describes them."""
    rest = {name: data for name, data in files.items() if name != MANIFEST}
    if digest_of(old) != old.get("digest"):
        raise UserError(
            f"{source / MANIFEST}: was changed after it was written (its digest does not match)"
        )
    listed = old.get("files") if isinstance(old.get("files"), dict) else {}
    for name in sorted({*rest, *listed}):
        if name not in rest or sha256(rest[name]) != listed.get(name):
            raise UserError(f"{source}: file {name!r} is not the one that the manifest describes")
    return rest


def _described(manifest: Manifest, files: dict[str, bytes], source: Path) -> Bundle:
    """A bundle whose networks have reproduced its golden rows."""
    whole = make_manifest(replace(manifest, files={}), files)
    text = json.dumps(whole.to_dict(), indent=1, sort_keys=True)
    bundle = check_bundle({**files, MANIFEST: text.encode()}, source)
    load_skills(bundle)
    for name in bundle.manifest.masters:
        load_master(bundle, name)
    return bundle
