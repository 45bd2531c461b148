"""Files are written whole or not at all, over nothing that was not meant, one writer at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sim.errors import UserError
from sim.files.output import (
    check_place,
    lock_beside,
    locked,
    make_room,
    replacing,
    replacing_folder,
    write_file,
)

WAIT = "import sys, time; print('ready', flush=True); time.sleep(60)"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def killed_in(block, path):
    """A process that is killed while it is inside of a block of `sim.files.output`."""
    code = f"""
import sys, time
from pathlib import Path
from sim.files.output import *
path = Path(sys.argv[1])
{block}
    (fresh / "half" if fresh.is_dir() else fresh).write_text("half")
    print("ready", flush=True)
    time.sleep(60)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    return process


def kill(process):
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


def test_what_would_pass_for_a_new_result_is_deleted(tmp_path):
    old, link = tmp_path / "old.html", tmp_path / "link.html"
    old.write_text("of monday")
    link.symlink_to("old.html")
    first = tmp_path / "first.json"
    first.write_text("of monday")
    with pytest.raises(UserError, match=r"link\.html: is a symbolic link, which is not followed"):
        make_room(first, old, link, overwrite=True)
    with pytest.raises(UserError, match="is a folder"):
        make_room(first, old, tmp_path, overwrite=True)
    with pytest.raises(UserError, match=r"old\.html exists; give another place"):
        make_room(tmp_path / "new.json", old, overwrite=False)
    assert (first.read_text(), old.read_text()) == ("of monday", "of monday")
    make_room(first, old, tmp_path / "none.html", overwrite=True)
    assert names(tmp_path) == ["first.json", "link.html"]


def test_a_file_is_written_with_the_folders_above_it(tmp_path):
    write_file(tmp_path / "a" / "b.txt", "whole")
    assert (tmp_path / "a" / "b.txt").read_text() == "whole"
    assert names(tmp_path / "a") == ["b.txt"]


def test_what_is_there_stays_unless_it_is_to_be_replaced(tmp_path):
    path = tmp_path / "own.txt"
    path.write_text("precious")
    path.chmod(0o640)
    with pytest.raises(UserError, match=r"own\.txt exists; give another place, or --overwrite"):
        write_file(path, "new")
    assert path.read_text() == "precious"
    write_file(path, "new", overwrite=True)
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o640
    assert names(tmp_path) == ["own.txt"]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("target", ["precious", "nowhere"])
def test_a_symbolic_link_is_not_followed(tmp_path, overwrite, target):
    (tmp_path / "precious").write_text("precious")
    link = tmp_path / "report.json"
    link.symlink_to(tmp_path / target)
    for write in (write_file, lambda p, _, **k: check_place(p, **k)):
        with pytest.raises(UserError, match="is a symbolic link"):
            write(link, "new", overwrite=overwrite)
    assert (tmp_path / "precious").read_text() == "precious"
    assert link.is_symlink()
    assert names(tmp_path) == ["precious", "report.json"]


def test_a_folder_and_a_device_are_no_place_for_a_file(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name, why in (("folder", "is a folder"), ("pipe", "is not a regular file")):
        with pytest.raises(UserError, match=why):
            write_file(tmp_path / name, "x", overwrite=True)
    assert (tmp_path / "pipe").is_fifo()


def test_a_folder_below_a_file_is_refused_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file is not a folder"):
        check_place(tmp_path / "file" / "report.json")
    assert (tmp_path / "file").is_file()


def test_looking_makes_nothing(tmp_path):
    check_place(tmp_path / "a" / "b" / "report.json")
    assert names(tmp_path) == []


def test_an_error_leaves_what_was_there_and_nothing_else(tmp_path):
    path = tmp_path / "film.mp4"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(path, overwrite=True) as fresh:
        fresh.write_text(f"half {1 / 0}")
    assert path.read_text() == "old"
    with pytest.raises(UserError, match=r"No space left.*what was there is kept"):  # noqa: SIM117
        with replacing(path, overwrite=True):
            raise OSError(28, "No space left on device")
    assert names(tmp_path) == ["film.mp4"]


def test_what_came_there_meanwhile_is_not_replaced(tmp_path):
    path = tmp_path / "a.txt"
    with pytest.raises(UserError, match="exists"), replacing(path):
        path.write_text("theirs")
    assert path.read_text() == "theirs"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_writer_left_goes_with_the_next_write_and_a_living_one_s_stays(
    tmp_path, kind
):
    path = tmp_path / "result.bin"
    block = (
        "with replacing(path) as fresh:"
        if kind == "file"
        else ("with replacing_folder(path) as fresh:")
    )
    dead, alive = killed_in(block, path), killed_in(block, path)
    try:
        kill(dead)
        assert len(names(tmp_path)) == 2
        if kind == "file":
            write_file(path, "new")
        else:
            with replacing_folder(path) as fresh:
                (fresh / "new").write_text("new")
        left = names(tmp_path)
        assert len(left) == 2  # the result and the living one's
        assert left[1] == "result.bin"
    finally:
        kill(alive)


def test_sweeping_leaves_files_of_other_names(tmp_path):
    mine = [".a.txt.partial", ".a.txt.old", ".b.0123456789abcdef.partial"]
    for name in mine:
        (tmp_path / name).write_text("")
    write_file(tmp_path / "a.txt", "x")
    assert names(tmp_path) == sorted([*mine, "a.txt"])


def test_a_folder_takes_the_place_of_another_as_a_whole(tmp_path):
    path = tmp_path / "bundle"
    path.mkdir()
    (path / "old").write_text("old")
    with pytest.raises(UserError, match="exists"), replacing_folder(path):
        pass
    with replacing_folder(path, overwrite=True) as fresh:
        (fresh / "new").write_text("new")
        assert names(path) == ["old"]
    assert names(path) == ["new"]
    assert names(tmp_path) == ["bundle"]


def test_what_was_moved_aside_when_a_writer_was_killed_is_put_back(tmp_path):
    moved = tmp_path / ".bundle.0123456789abcdef.old"
    moved.mkdir()
    (moved / "precious").write_text("")
    with pytest.raises(RuntimeError), replacing_folder(tmp_path / "bundle", overwrite=True):
        raise RuntimeError
    assert names(tmp_path) == ["bundle"]
    assert names(tmp_path / "bundle") == ["precious"]


def test_a_lock_keeps_a_second_process_out_and_ends_with_its_holder(tmp_path):
    lock = lock_beside(tmp_path / "run")
    code = f"""
import sys, time
from pathlib import Path
from sim.files.output import *
with locked(Path({str(lock)!r}), "run"):
    print("ready", flush=True)
    time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    with pytest.raises(UserError, match=rf"run is in use: .* \(process {process.pid}\)"):  # noqa: SIM117
        with locked(lock, "run"):
            pass
    assert names(tmp_path) == [".run.lock"]
    kill(process)
    with locked(lock, "run"):
        assert names(tmp_path) == [".run.lock"]
    assert names(tmp_path) == []


def test_many_writers_of_one_file_leave_one_whole_file(tmp_path):
    path, faults = tmp_path / "a.txt", []

    def write(letter):
        for _ in range(20):
            try:
                write_file(path, letter * 100_000, overwrite=True)
            except UserError as error:
                faults.append(str(error))

    threads = [threading.Thread(target=write, args=(letter,)) for letter in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    text = path.read_text()
    assert len(text) == 100_000
    assert len(set(text)) == 1
    assert not faults
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("text", [".", "below/..", ""])
def test_a_path_without_a_name_is_the_folder_that_it_means(tmp_path, monkeypatch, text):
    here = tmp_path / "here"
    (here / "below").mkdir(parents=True)
    monkeypatch.chdir(here)
    (here / "old").write_text("old")
    place = Path(text)
    with pytest.raises(UserError, match=f"^{here} exists; give another place"):
        check_place(place, folder=True)
    check_place(place, overwrite=True, folder=True)
    with replacing_folder(place, overwrite=True) as fresh:
        (fresh / "new").write_text("new")
    assert names(here) == ["new"]
    assert names(tmp_path) == ["here"]


def test_the_root_is_no_place_for_an_output():
    with pytest.raises(UserError, match=r"^/: is no place for an output"):
        check_place(Path("/"), overwrite=True, folder=True)
