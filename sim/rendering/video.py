"""Encodes MP4 files with the ffmpeg of the package imageio-ffmpeg."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from PIL import Image

from sim.errors import UserError
from sim.files.output import replacing


def find_encoder() -> str:
    """Returns the path of ffmpeg.

    Raises:
        UserError: the extra is not installed, or has no ffmpeg for this machine.
    """
    try:
        from imageio_ffmpeg import get_ffmpeg_exe
    except ImportError:
        raise UserError(
            "MP4 needs imageio-ffmpeg, which is not installed; pip install 'mlsh_ros[video]' "
            "brings it. GIF works without"
        ) from None
    try:
        return str(get_ffmpeg_exe())
    except RuntimeError:
        raise UserError(
            "MP4 needs ffmpeg, and imageio-ffmpeg has none for this machine. GIF works without"
        ) from None


def write_mp4(
    pictures: Iterable[Image.Image],
    path: Path,
    *,
    size: tuple[int, int],
    rate: float,
    overwrite: bool = False,
) -> None:
    """Encode as H.264, which browsers play. A failure or an interrupt leaves no file.

    Args:
        pictures: RGB, all of `size`.
        path: of the film.
        size: width and height, even numbers.
        rate: pictures per second.
        overwrite: whether a file that is there may be replaced.

    Raises:
        UserError: no ffmpeg, or it fails; the message contains its output.
    """
    with replacing(path, overwrite=overwrite) as fresh:
        if failure := _encode(pictures, fresh, size, rate):
            raise UserError(f"{path}: could not be written, ffmpeg reports: {failure}")


def _encode(
    pictures: Iterable[Image.Image], path: Path, size: tuple[int, int], rate: float
) -> str:
    """Run ffmpeg; returns its error output if it fails."""
    width, height = size
    source = f"-f rawvideo -pix_fmt rgb24 -s {width}x{height} -r {rate:.6f} -i -"
    # yuv420p: the only format that all common players support.
    sink = "-c:v libx264 -pix_fmt yuv420p -movflags +faststart -f mp4"
    # "file:", because a name may begin with a dash or have a colon.
    command = [find_encoder(), "-v", "error", "-y", *source.split(), *sink.split(), f"file:{path}"]
    ffmpeg = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    assert ffmpeg.stdin is not None
    try:
        with suppress(BrokenPipeError):  # it has stopped; its error output is read below
            for picture in pictures:
                ffmpeg.stdin.write(picture.tobytes())
        said = ffmpeg.communicate()[1].decode(errors="replace")
    except BaseException:
        ffmpeg.kill()
        ffmpeg.communicate()
        raise
    return (" ".join(said.split()) or f"status {ffmpeg.returncode}") if ffmpeg.returncode else ""
