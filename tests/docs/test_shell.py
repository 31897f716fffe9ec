"""Shell blocks: every `fastrank` command has arguments that it takes; those under `<!-- run -->` run, page by page."""

import re
import shlex
import shutil
import subprocess
import sys

import pytest
from support.documents import DOCS, PAGES, blocks, name, read
from support.waiting import patience

from fastrank import cli

pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="the documentation is not here")
SHELL = ("sh", "bash", "shell", "console")


def commands(text):
    """The arguments of each `fastrank` that stands at the beginning of a command."""
    for block in blocks(text, *SHELL):
        lines = [] if block.language not in SHELL else block.text.replace("\\\n", " ").splitlines()
        for line in lines:
            if "..." not in line:
                words = shlex.shlex(line, posix=True, punctuation_chars=True)
                words.whitespace_split = True
                yield from _of_line(list(words), block.line)


def _of_line(words, line):
    command = []
    for word in [*words, ";"]:
        if set(word) <= set("|&;()<>"):
            while command and re.fullmatch(r"[A-Z_]+=.*", command[0]):
                command.pop(0)
            if command[:1] == ["fastrank"]:
                yield command[1:], line
            command = ["(redirected)"] if set(word) <= set("<>") else []
        else:
            command.append(word)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_have_arguments_that_they_take(page, capsys):
    for arguments, line in commands(read(page)):
        try:
            cli._parser().parse_args(arguments)
        except SystemExit:
            said = capsys.readouterr().err
            assert not said, f"{name(page)}:{line}: fastrank {shlex.join(arguments)}: {said}"


WITH_RUN = [page for page in PAGES if any("run" in block.marks for block in blocks(read(page), *SHELL))]


@pytest.mark.skipif(sys.platform == "win32" or not shutil.which("bash"), reason="there is no bash")
@pytest.mark.parametrize("page", WITH_RUN, ids=name)
def test_marked_blocks_run(page, environment, request, tmp_path):
    text = read(page)
    address = request.getfixturevalue("server") if "127.0.0.1:8321" in text else "127.0.0.1:8321"
    printed = None
    for block in blocks(text, *SHELL):
        if "output" in block.marks:
            assert printed is None or printed == block.text, f"{name(page)}:{block.line}"
        elif "run" in block.marks:
            program = block.text.replace("127.0.0.1:8321", address)
            command = ["bash", "-euo", "pipefail", "-c", program]
            done = subprocess.run(
                command,
                env=environment,
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=patience(120),
                check=False,
            )
            assert done.returncode == 0, f"{name(page)}:{block.line}: {done.stdout}{done.stderr}"
            printed = done.stdout
        else:
            printed = None


def test_a_wrong_option_is_found():
    text = "```sh\nA=1 fastrank embed x.txt --nonsense | head  # a comment\nfastrank cache && fastrank info > y\n```\n"
    assert [arguments for arguments, _ in commands(text)] == [["embed", "x.txt", "--nonsense"], ["cache"], ["info"]]
