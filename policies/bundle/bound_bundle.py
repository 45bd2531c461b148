"""A bundle whose topics, message types and fields are replaced by a file of bindings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from policies.bundle.bundle import Bundle, load_bundle
from sim.interface.bindings import Bindings, bind, read_bindings


def load_bound(bundle: str, bindings: str) -> Bundle:
    """Load a bundle, and replace its topics, message types and fields by those of a file.

    Args:
        bundle: a shipped one by name, or a folder or zip file.
        bindings: path of the file; empty: the bundle's own.

    Raises:
        UserError: there is no such bundle or file, or one of them is invalid.
    """
    return bound_by_file(load_bundle(bundle), bindings)


def bound_by_file(bundle: Bundle, bindings: str) -> Bundle:
    """Returns the bundle with the bindings of a file in place of its own; empty: as it is.

    Raises:
        UserError: the file is missing, invalid, or does not fit the bundle.
    """
    return bound(bundle, read_bindings(Path(bindings)), bindings) if bindings else bundle


def bound(bundle: Bundle, bindings: Bindings, where: object) -> Bundle:
    """Returns the bundle with bindings in place of its own; it is still the same policy.

    Its digest stays: it identifies what was trained.

    Raises:
        UserError: the bindings do not fit the bundle's interface.
    """
    interface = bind(bundle.interface, bindings, where)
    return replace(bundle, manifest=replace(bundle.manifest, interface=interface))
