"""Seconds from the file of a policy to a robot that moves: the commands of a page, timed.

    python -m tests.benchmarks.own_policies [PART OF A HEADING]

Runs docs/use-your-own-policies.md. A command counts for the file's way to the robot if it imports,
learns a master, or moves the robot through the nodes; the training of the policy does not.
"""

import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks import one_line_errors
from tests.support import pages

PAGE = Path(__file__).parents[2] / "docs" / "use-your-own-policies.md"
COUNTED = ("mlsh import-skill drive", "mlsh import-skill go2", "mlsh finetune", "--backend ros")


class TimedShell(pages.Shell):
    """Keeps the seconds of every command."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.seconds: list[tuple[str, float]] = []

    def run(self, command: str) -> str:
        start = time.perf_counter()
        output = super().run(command)
        self.seconds.append((command, time.perf_counter() - start))
        return output


def measure(text: str) -> list[tuple[str, float]]:
    """Commands of a part of the page and the seconds that each took."""
    shells: list[TimedShell] = []

    def make(folder: Path) -> TimedShell:
        shells.append(TimedShell(folder))
        return shells[0]

    with tempfile.TemporaryDirectory() as place:
        (folder := Path(place) / "page").mkdir()
        pages.run_page(text, folder, make)
    return shells[0].seconds


@one_line_errors
def main() -> None:
    """Print the seconds of every command, and their sum on the way from the file to the robot."""
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    for heading, text in pages.parts(PAGE.read_text()).items():
        if "```console" not in text or wanted not in heading:
            continue
        print(heading)
        counted = []
        for command, seconds in measure(text):
            on_the_way = any(words in command for words in COUNTED)
            counted += [seconds] * on_the_way
            print(f"  {'+' if on_the_way else ' '} {seconds:7.1f} s  {command}")
        print(f"  {len(counted)} commands, {sum(counted) / 60:.1f} min from the file to the robot")


if __name__ == "__main__":
    main()
