"""Recognizes a recording and a bundle that were given in the place of each other."""

from __future__ import annotations

from pathlib import Path

from policies.bundle.bundle import pretrained_names
from policies.bundle.manifest import MANIFEST
from sim.errors import UserError, short

RECORDED = (".mcap", ".db3")


def check_order(usage: str, *, recording: str, bundle: str) -> None:
    """Refuse a bundle and a recording in the wrong order; whatever else they are, pass them.

    Args:
        usage: the command with both in the right order.
        recording: what was given as the recording.
        bundle: what was given as the bundle.

    Raises:
        UserError: names both, and what comes first.
    """
    if _is_bundle(recording) and _is_recording(bundle):
        first = "recording" if usage.index("RECORDING") < usage.index("BUNDLE") else "bundle"
        raise UserError(
            f"{short(recording)} is a bundle and {short(bundle)} a recording; the {first} comes "
            f"first: {usage}"
        )


def _is_bundle(text: str) -> bool:
    return text in pretrained_names() or _exists(Path(text) / MANIFEST)


def _is_recording(text: str) -> bool:
    path = Path(text)
    if path.suffix in RECORDED or _exists(path / "metadata.yaml"):
        return True
    try:
        return next(path.glob("*.mcap"), None) is not None
    except OSError:
        return False


def _exists(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long
        return False
