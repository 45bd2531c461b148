"""Exports that LEAPP made (tests/support/leapp_export.py), and changes to them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import yaml

from policies.bundle.manifest import sha256
from tests.support.leapp_export import EXPORTS, TASK

FOLDER = Path(__file__).parent / "foreign_policies" / "leapp"
ORIENTATION, GRAVITY = EXPORTS
SKILLS = {"ahead": {"base_velocity": [0.8, 0.0, 0.0]}, "stand": {"base_velocity": [0.0, 0.0, 0.0]}}


def document(export: str = ORIENTATION) -> dict[str, Any]:
    """LEAPP's YAML."""
    return yaml.safe_load((FOLDER / export / f"{export}.yaml").read_text())


def described(
    folder: Path,
    export: str = ORIENTATION,
    change: Callable[[dict[str, Any]], object] = lambda data: None,
    redraw: Callable[[onnx.ModelProto], object] | None = None,
    initial: bytes | None = None,
    **keys: Any,
) -> Path:
    """A description of an export in a folder of its own.

    Args:
        folder: for description and export.
        export: of `EXPORTS`.
        change: to LEAPP's YAML.
        redraw: to the ONNX model; the YAML states its SHA-256.
        initial: the file with initial values in place of LEAPP's.
        keys: of the description in place of those that stand; `...`: none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data = document(export)
    path = folder / f"{TASK}.onnx"
    model = onnx.load(FOLDER / export / f"{TASK}.onnx")
    if redraw is None:
        path.write_bytes((FOLDER / export / f"{TASK}.onnx").read_bytes())
    else:
        redraw(model)
        onnx.save(model, path)
        data["models"][TASK]["parameters"]["sha256sum"] = sha256(path.read_bytes())
    values = f"{export}_initial_values.safetensors"
    if initial is None:
        initial = (FOLDER / export / values).read_bytes()
    (folder / values).write_bytes(initial)
    change(data)
    (folder / "leapp.yaml").write_text(yaml.safe_dump(data))
    whole = {
        "schema": 2,
        "leapp": "leapp.yaml",
        "license": "Apache-2.0",
        "source": "made for a test",
        "skills": SKILLS,
        **keys,
    }
    file = folder / "policy.yaml"
    file.write_text(yaml.safe_dump({k: v for k, v in whole.items() if v is not ...}))
    return file


def tensor(data: dict[str, Any], name: str) -> dict[str, Any]:
    """An input or an output in LEAPP's YAML."""
    model = data["models"][TASK]
    return next(each for each in (*model["inputs"], *model["outputs"]) if each["name"] == name)
