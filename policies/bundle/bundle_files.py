"""Reads the files of a bundle, a folder or a zip file, with bounds on their number and size.

`policies.bundle.bundle` lists the files and checks their content.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import islice
from pathlib import Path

from policies.bundle.manifest import MANIFEST, MAX_FILES
from sim.errors import UserError, short
from sim.files.arrays import open_zip, read_piecewise

MAX_MANIFEST_BYTES = 2**20
MAX_FILE_BYTES = 16 * 2**20
MAX_BUNDLE_BYTES = 64 * 2**20
Read = Callable[[str, int], bytes]  # of a file by name, so many bytes at most


def read_files(path: Path) -> dict[str, bytes]:
    """The files of a bundle folder or zip file by name, unchecked but for their number and size.

    Raises:
        UserError: it is neither, or larger than a bundle may be.
    """
    with opened(path) as (names, read):
        files = dict(read_all(read, names, path))
    if MANIFEST not in files:
        raise UserError(f"{path}: {MANIFEST} is missing; {advice(names, path)}")
    return files


@contextmanager
def opened(path: Path) -> Iterator[tuple[list[str], Read]]:
    """The names of the files of a bundle folder or zip file, and what reads one of them."""
    if path.is_dir():
        yield _folder(path), partial(_read_file, path)
        return
    if not path.is_file():
        raise UserError(f"{path}: neither a folder nor a zip file")
    if path.suffix in (".yaml", ".yml"):
        raise UserError(
            f"{path}: is not a bundle; mlsh import-skill makes one of a description of skills"
        )
    with ExitStack() as stack:
        with _archive_errors(path):
            stream = stack.enter_context(path.open("rb"))
            archive = stack.enter_context(open_zip(stream))
        yield _zipped(archive, path), partial(_read_entry, archive, path)


def bounded(read: Read, name: str, most: int, source: Path) -> bytes:
    """Returns the content of a file; refuses one with more than `most` bytes."""
    data = read(name, most + 1)  # a declared size may lie
    if len(data) > most:
        raise UserError(f"{source}: {name!r} is larger than {most} bytes")
    return data


def read_all(
    read: Read, names: Iterable[str], source: Path, size: int = 0
) -> Iterator[tuple[str, bytes]]:
    """Yields files with their names; `size` bytes of the bundle have been read before them."""
    for name in names:
        data = bounded(read, name, MAX_FILE_BYTES, source)
        if (size := size + len(data)) > MAX_BUNDLE_BYTES:
            raise UserError(f"{source}: larger than {MAX_BUNDLE_BYTES} bytes, at {name!r}")
        yield name, data


def advice(names: Sequence[str], source: Path) -> str:
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
        raise UserError(f"{path}: {MANIFEST} is missing; {advice(near, path)}")
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
