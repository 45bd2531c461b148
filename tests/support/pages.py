"""Runs the blocks of a documentation page in order, as a reader would.

`python -m tests.support.pages PAGE..` writes the outputs that the commands give into the page.

| block | meaning |
| --- | --- |
| `console` | `$ COMMAND` lines, each with its output below it |
| `xml`, `yaml`, `python` with `title="FILE"` | the file is written |
| the same after `<!-- current -->` | the page shows the file as it is |
| `diff` with `title="FILE"` | each line `-old` of the file becomes the line `+new` |

All commands of a page run in one shell, in an empty folder; `$MLSH` is the folder of this
repository. In an expected output `..` stands for anything within a line, and a line that is `..`
alone for any number of lines. After `<!-- numbers vary -->` numbers, digests and spaces are not
compared.
"""

import os
import re
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

BLOCK = re.compile(r"^(<!-- [a-z ]+ -->\n)?```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
VARIES = re.compile(r"\b[0-9a-f]{16}\b|[-+]?\d[\d,.]*(e[-+]?\d+)?|(?<=\S) +| +$")
TITLE = re.compile(r'title="([^"]+)"')
ANYTHING = ".."
LONGEST = 1200.0  # s that a command may take on a busy machine


class Shell:
    """A bash in a folder, in which `mlsh` and `python` are those of this environment."""

    def __init__(self, folder: Path) -> None:
        tools = folder.parent / f"{folder.name}-tools"
        tools.mkdir(exist_ok=True)
        for name, words in (("mlsh", '-m mlsh_ros.cli.main "$@"'), ("python", '"$@"')):
            (tools / name).write_text(f"#!/bin/sh\nexec {sys.executable} {words}\n")
            (tools / name).chmod(0o755)
        root = str(Path(__file__).parents[2])
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        own = {
            "PATH": f"{tools}:{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(paths),
            "COLUMNS": "200",
            "MLSH": root,
        }
        self.process = subprocess.Popen(
            ["bash", "--norc"],
            cwd=folder,
            env=os.environ | own,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def run(self, command: str) -> str:
        """What a command prints, without white space at the ends of lines."""
        mark = f"\x01{time.monotonic_ns()}\x01"
        # `$?` is that of the command, for the next one too.
        line = f"{command}\n{{ __s=$?; printf '%s' '{mark}'; (exit $__s); }} 2>&1\n"
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line.encode())
        self.process.stdin.flush()
        heard, deadline = b"", time.monotonic() + LONGEST
        while mark.encode() not in heard:
            if not select.select([self.process.stdout], [], [], deadline - time.monotonic())[0]:
                raise TimeoutError(f"{command}: {heard.decode()}")
            heard += os.read(self.process.stdout.fileno(), 65536)
            assert heard or self.process.poll() is None, "the shell has ended"
        text = heard.decode().replace(mark, "")
        return "".join(f"{part.rstrip()}\n" for part in text.splitlines())

    def close(self) -> None:
        """End the shell and what it has left running."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"kill $(jobs -p) 2>/dev/null; wait\n")
        self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, 9)
            self.process.wait()


def matches(expected: str, output: str, vary: bool = False) -> bool:
    """Whether an output is the one of a page; `vary`: but for its numbers."""
    if vary:
        expected, output = (VARIES.sub("#", text) for text in (expected, output))
    parts = []
    for line in expected.splitlines():
        if line == ANYTHING:
            parts.append(r"(?:.*\n)*?")
        else:
            words = (re.escape(each) for each in line.rstrip().split(ANYTHING))
            parts.append(r"[^\n]*?".join(words) + "\n")
    return re.fullmatch("".join(parts), output) is not None


def run_page(text: str, folder: Path, make_shell: Callable[[Path], Shell] = Shell) -> str:
    """The page with the outputs that its commands really give, where these differ."""
    shell = make_shell(folder)

    def act(match: re.Match[str]) -> str:
        said, kind, more, body = match.groups()
        said = said or ""
        title = TITLE.search(more)
        if kind == "console":
            body = _console(shell, body, "vary" in said)
        elif title is None:
            return match[0]  # for reading
        elif "current" in said:
            body = (folder / title[1]).read_text()
        elif kind == "diff":
            _edit(folder / title[1], body)
        else:
            (folder / title[1]).write_text(body)
        return f"{said}```{kind}{more}\n{body}```"

    try:
        return BLOCK.sub(act, text)
    finally:
        shell.close()


def _console(shell: Shell, body: str, vary: bool) -> str:
    shown = []
    for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
        command, _, expected = part.partition("\n")
        while command.endswith("\\"):
            more, _, expected = expected.partition("\n")
            command += f"\n{more}"
        output = shell.run(re.sub(r"\s+#\s.*$", "", command))
        shown.append(f"$ {command}\n{expected if matches(expected, output, vary) else output}")
    return "".join(shown)


def _edit(path: Path, body: str) -> None:
    text = path.read_text()
    for old, new in re.findall(r"^-(.*)\n\+(.*)$", body, re.MULTILINE):
        assert f"\n{old}\n" in text, old
        text = text.replace(f"\n{old}\n", f"\n{new}\n", 1)
    path.write_text(text)


def parts(text: str) -> dict[str, str]:
    """The parts of a page by their headings of the second level; before the first, under ''."""
    found = re.split(r"^## (.*)\n", text, flags=re.MULTILINE)
    return {"": found[0], **dict(zip(found[1::2], found[2::2], strict=True))}


if __name__ == "__main__":
    for name in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as place:
            (inside := Path(place) / "page").mkdir()
            page = Path(name)
            page.write_text(run_page(page.read_text(), inside))
