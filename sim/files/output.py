"""Writes results atomically, under a lock, and never over files of another kind.

`check_place` checks the place before the work begins, `replacing` and `write_file` write a file,
`write_result` writes a result of several files, `replacing_folder` writes a folder, and `locked`
excludes a second process.
"""

from __future__ import annotations

import csv
import fcntl
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from sim.errors import UserError

TOKEN = r"[0-9a-f]{16}"


def named(path: Path) -> Path:
    """Returns the same place as a path that ends in a name; `.` and `x/..` have none.

    Raises:
        UserError: it is the root of the file system.
    """
    if path.name not in ("", ".."):
        return path
    whole = Path(os.path.abspath(path))
    if not whole.name:
        raise UserError(f"{path}: is no place for an output")
    return whole


def check_place(path: Path, *, overwrite: bool = False, folder: bool = False) -> None:
    """Refuse an output path that cannot be written or is already in use.

    Args:
        path: the output file or folder.
        overwrite: whether an existing file (or folder) of that name may be replaced.
        folder: whether the output is a folder.

    Raises:
        UserError: the path exists already, or no folder above it is writable.
    """
    path = named(path)
    with _reported(path):
        if path.parent.is_dir():
            _sweep(path)  # what a kill had moved aside is back before it is looked for
        _check_target(path, overwrite, folder)
        above = path.absolute().parent
        while not above.exists():
            above = above.parent
        if not above.is_dir():
            raise UserError(f"{path}: {above} is not a folder")
        fresh, handle = _claimed_file(above / path.name)  # tried, as permissions do not say it all
        fresh.unlink()
        os.close(handle)


def check_format(path: Path, kind: str, suffixes: Iterable[str], *, overwrite: bool) -> None:
    """Refuse a path of another format, or in a folder that does not exist; see `check_place`."""
    if path.suffix not in suffixes:
        raise UserError(f"{path}: no {kind} format {path.suffix!r}. Valid: {', '.join(suffixes)}")
    if not path.parent.is_dir():
        raise UserError(f"{path}: folder {str(path.parent)!r} does not exist")
    check_place(path, overwrite=overwrite)


def make_room(first: Path, *others: Path, overwrite: bool) -> None:
    """Prepare the places of a result of several files, when they are about to be written.

    `check_place` has checked them before the work began; what has come there since then stays as
    well. Files of an earlier result go before the first one is replaced: they would pass for those
    of the new one. Who is killed or finds the disk full leaves a part of a result then, and not
    parts of two.

    Args:
        first: the file that is written first, which is replaced.
        others: the other files, which are deleted.
        overwrite: whether an earlier result may be replaced.

    Raises:
        UserError: something stands there that must stay, and nothing was deleted; or a file cannot
            be deleted.
    """
    for path in (first, *others):
        with _reported(path):
            _check_target(path, overwrite, folder=False)
    for path in others:
        with _reported(path):
            path.unlink(missing_ok=True)


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        kept = "; what was there is kept" if os.path.lexists(path) else ""
        raise UserError(f"{path}: could not be written ({_reason(error)}){kept}") from None


def _reason(error: OSError) -> object:
    if isinstance(error, shutil.Error) and isinstance(error.args[0], list):  # of a whole tree
        source, _, why = error.args[0][0]
        return why if str(source) in str(why) else f"{source}: {why}"
    return error.strerror or error


def _check_target(path: Path, overwrite: bool, folder: bool) -> None:
    if path.is_symlink():  # what it points to is not ours to change
        raise UserError(f"{path}: is a symbolic link, which is not followed; give another place")
    if not path.exists():
        return
    if folder and not path.is_dir():
        raise UserError(f"{path}: is not a folder")
    if not folder and not path.is_file():
        kind = "is a folder" if path.is_dir() else "is not a regular file"
        raise UserError(f"{path}: {kind}")
    if not overwrite:
        raise UserError(f"{path} exists; give another place, or --overwrite to replace it")


@contextmanager
def replacing(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A temporary file beside `path`, which becomes it when the block ends without an error.

    It has the suffix of `path`, exists, is empty, and may be opened by its name. An error, an
    interrupt or a kill leaves `path` as it was; what a kill leaves beside it goes with the next
    write to the same place. Folders above it are made.

    Args:
        path: of the file.
        overwrite: whether a file that is there may be replaced.

    Yields:
        The temporary file's path.

    Raises:
        UserError: something stands at `path` that must stay, or it could not be written.
    """
    path = named(path)
    with _reported(path):
        _check_target(path, overwrite, folder=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        fresh, handle = _claimed_file(path)
        try:
            if path.exists():
                os.fchmod(handle, stat.S_IMODE(path.stat().st_mode))
            yield fresh
            os.fsync(handle)
            _check_target(path, overwrite, folder=False)  # nothing came there meanwhile
            os.replace(fresh, path)
            _sync(path.parent)
        finally:
            fresh.unlink(missing_ok=True)
            os.close(handle)


def write_file(path: Path, content: bytes | str, *, overwrite: bool = False) -> None:
    """Write a file as `replacing` does; text is encoded as UTF-8.

    Raises:
        UserError: something stands at `path` that must stay, or it could not be written.
    """
    with replacing(path, overwrite=overwrite) as fresh:
        fresh.write_bytes(content.encode() if isinstance(content, str) else content)


def write_result(files: Mapping[Path, bytes | str], *, overwrite: bool = False) -> None:
    """Write a result of several files, the first one first; see `make_room`.

    Args:
        files: content of each, complete before a place is touched; what UTF-8 lacks is replaced.
        overwrite: whether an earlier result may be replaced.

    Raises:
        UserError: something stands there that must stay, or a file could not be written.
    """
    make_room(*files, overwrite=overwrite)
    for path, content in files.items():
        data = content.encode("utf-8", "replace") if isinstance(content, str) else content
        write_file(path, data, overwrite=overwrite)


def json_text(data: object) -> str:
    """Returns plain data as the text of a JSON file."""
    return json.dumps(data, indent=1) + "\n"


def write_csv(
    path: Path,
    header: Iterable[str],
    rows: Iterable[Iterable[object]],
    *,
    overwrite: bool = False,
) -> None:
    """Write a table as CSV.

    Raises:
        UserError: something stands at `path` that must stay, or it could not be written.
    """
    with (
        replacing(path, overwrite=overwrite) as fresh,
        fresh.open("w", newline="") as stream,
    ):
        csv.writer(stream).writerows([header, *rows])


def write_json(path: Path, data: object, *, overwrite: bool = False) -> None:
    """Write plain data as JSON.

    Raises:
        UserError: something stands at `path` that must stay, or it could not be written.
    """
    write_file(path, json_text(data), overwrite=overwrite)


@contextmanager
def replacing_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A temporary folder that replaces `path` as a whole when the block ends without an error.

    Raises:
        UserError: something stands at `path` that must stay, or it could not be written.
    """
    path = named(path)
    with _reported(path):
        _check_target(path, overwrite, folder=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        fresh, handle = _claimed_folder(path)
        try:
            yield fresh
            for each in fresh.rglob("*"):
                if not each.is_symlink():  # it may lead anywhere, or nowhere
                    _sync(each)
            _check_target(path, overwrite, folder=True)
            _put(fresh, path)
            _sync(path.parent)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
            os.close(handle)


def _put(fresh: Path, path: Path) -> None:
    """Move a folder to `path`; after any failure either the old or the new folder is at `path`."""
    if not path.exists():
        os.rename(fresh, path)
        return
    old = fresh.with_suffix(".old")
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # locked, where that is possible: `_sweep` leaves it alone
            if not _claim(handle):
                raise UserError(f"{path} is in use: another process replaces it")
        os.rename(path, old)  # a kill from here on leaves it to `_sweep`, which puts it back
        try:
            os.rename(fresh, path)
        except BaseException:  # an interrupt too
            os.rename(old, path)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        os.close(handle)


@contextmanager
def locked(file: Path, what: str) -> Iterator[None]:
    """Hold a lock while the block runs; it is released when the process ends for any reason.

    Args:
        file: the lock file; it exists while the lock is held.
        what: the protected resource, for the error message.

    Raises:
        UserError: another process holds the lock, or `file` could not be written.
    """
    with _reported(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        handle = _lock(file)
    if handle is None:
        holder = ""
        with suppress(OSError, ValueError):
            holder = f" (process {int(file.read_text())})"
        raise UserError(f"{what} is in use: another process{holder} writes there")
    try:
        yield
    finally:
        file.unlink(
            missing_ok=True
        )  # before the lock is released, so that no other process's file is deleted
        os.close(handle)


def lock_beside(path: Path) -> Path:
    """Returns the path of the lock for a file or folder that will be created."""
    whole = path.resolve()
    return whole.with_name(f".{whole.name}.lock")


def _lock(file: Path) -> int | None:
    while True:
        handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        if not _claim(handle):
            os.close(handle)
            return None
        if _is_there(file, handle):
            os.truncate(handle, 0)
            os.write(handle, str(os.getpid()).encode())
            return handle
        os.close(handle)  # its holder ended and took it away; the next one may be ours


def _is_there(file: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.stat(file), os.fstat(handle))
    except FileNotFoundError:
        return False


def _claim(handle: int) -> bool:
    """Lock an open file or folder until it is closed; False if another process holds the lock."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _partial(path: Path, suffix: str) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial{suffix}")


def _claimed_file(path: Path) -> tuple[Path, int]:
    """Create a new file, open and locked, so that `_sweep` of another process leaves it alone."""
    while True:
        fresh = _partial(path, path.suffix)
        handle = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        if _claimed(fresh, handle):
            return fresh, handle


def _claimed_folder(path: Path) -> tuple[Path, int]:
    while True:
        fresh = _partial(path, "")
        fresh.mkdir()
        handle = os.open(fresh, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        if _claimed(fresh, handle):
            return fresh, handle


def _claimed(fresh: Path, handle: int) -> bool:
    """True if the file is locked by this process; False if it was deleted before it was locked."""
    with suppress(OSError):  # a file system without locks: nothing is swept there either
        if not _claim(handle) or not _is_there(fresh, handle):
            os.close(handle)
            return False
    return True


def _sweep(path: Path) -> None:
    """Delete what interrupted writes to `path` left behind, and restore what they had moved."""
    left = re.compile(rf"{re.escape(f'.{path.name}')}\.{TOKEN}\.(partial.*|old)")
    for each in path.parent.iterdir():
        if left.fullmatch(each.name) and not each.is_symlink():
            with suppress(OSError):
                _sweep_one(each, path)


def _sweep_one(each: Path, path: Path) -> None:
    handle = os.open(each, os.O_RDWR if each.is_file() else os.O_RDONLY | os.O_DIRECTORY)
    try:
        if not _claim(handle):
            return  # being written
        if each.suffix == ".old" and not path.exists():
            os.rename(each, path)
        elif each.is_dir():
            shutil.rmtree(each)
        else:
            each.unlink()
    finally:
        os.close(handle)


def _sync(path: Path) -> None:
    """Flush written data to the disk, if the file system supports it."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)
