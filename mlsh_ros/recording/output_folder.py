"""Checks where a recording may be written; writes nothing itself."""

from __future__ import annotations

import importlib.util
import os
import shutil
import time
from pathlib import Path

from sim.errors import UserError

NEEDED = 64 * 2**20  # bytes that must be free when a recording begins
PACKAGES = ("mcap", "rosbags")


def default_folder() -> Path:
    """Returns a folder in the current one, named by local time."""
    return Path(time.strftime("recording_%Y-%m-%d_%H-%M-%S"))


def check_place(folder: Path) -> None:
    """Refuse a recording that could not be written.

    Raises:
        UserError: a package is missing, the folder is not empty, or the folder above it
            is missing, is not writable or has too little room.
    """
    for name in PACKAGES:
        if importlib.util.find_spec(name) is None:
            raise UserError(f"{name} is not installed; pip install 'mlsh_ros[record]' brings it")
    where = f"record_dir {folder}"
    try:
        if folder.is_symlink() or folder.exists():
            if not folder.is_dir():
                raise UserError(f"{where}: is not a folder")
            if any(folder.iterdir()):
                raise UserError(
                    f"{where}: is not empty, and nothing is ever written over; "
                    "give a folder that does not exist"
                )
        above = folder.absolute()
        while not above.exists():
            above = above.parent
        if not above.is_dir():
            raise UserError(f"{where}: {above} is not a folder")
        if not os.access(above, os.W_OK | os.X_OK):
            raise UserError(f"{where}: {above} is not writable")
        free = shutil.disk_usage(above).free
    except OSError as error:
        raise UserError(f"{where}: {error.strerror}") from None
    if free < NEEDED:
        raise UserError(
            f"{where}: {free / 2**20:.0f} MB are free on its disk, {NEEDED / 2**20:.0f} are needed"
        )
