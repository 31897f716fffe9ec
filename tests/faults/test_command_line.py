"""The command line among files, pipes, signals and terminals (rows C1 to C7 of README.md)."""

import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
import support
from support.processes import run_python
from support.waiting import patience, wait_until

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX files and signals")
MODEL = str(support.FIXTURES / "sentence_encoder")
LINES = "the cat is red\nfast dog\n"


@pytest.fixture
def documents(tmp_path):
    path = tmp_path / "documents.txt"
    path.write_text(LINES, encoding="utf-8")
    return path


def embed(*arguments, **options):
    return run_python("-m", "fastrank", "embed", *arguments, "--path", MODEL, **options)


def shell(command, *arguments, **options):
    """Run a shell command in which "$@" is `fastrank` with the arguments."""
    parts = ["sh", "-c", command, "sh", sys.executable, "-m", "fastrank", *map(str, arguments)]
    return subprocess.run(parts, capture_output=True, text=True, timeout=patience(120), check=False, **options)


def start(*arguments, **options):
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen([sys.executable, "-m", "fastrank", *map(str, arguments)], **{**pipes, **options})


# -- C1: the output is the input --------------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("kind", ["same", "relative", "symlink", "hard link", "standard input"])
def test_c1_an_output_that_is_the_input_is_refused(tmp_path, kind):
    source = tmp_path / "rows.jsonl"
    source.write_text('{"body": "the cat"}\n', encoding="utf-8")
    output = tmp_path / "link.jsonl"
    if kind == "symlink":
        output.symlink_to(source)
    elif kind == "hard link":
        output.hardlink_to(source)
    else:
        output = tmp_path / "." / "rows.jsonl" if kind == "relative" else source
    before = output.lstat()
    if kind == "standard input":
        with source.open() as stdin:
            done = embed("--field", "body", "-o", output, stdin=stdin)
    else:
        done = embed(source, "-o", output)
    assert done.returncode == 1
    assert done.stderr == f"fastrank: --output {output}: is the input, which would be lost. Name another file\n"
    assert source.read_text(encoding="utf-8") == '{"body": "the cat"}\n'
    assert output.lstat().st_ino == before.st_ino


# -- C2: what is there already ----------------------------------------------------------------------------------------


@posix
def test_c2_a_file_that_is_replaced_keeps_its_mode_and_its_links(documents, tmp_path):
    private, link = tmp_path / "private.npy", tmp_path / "link.npy"
    private.write_bytes(b"old")
    private.chmod(0o600)
    link.symlink_to("private.npy")
    assert embed(documents, "-o", link).returncode == 0
    assert link.is_symlink()
    assert private.stat().st_mode & 0o777 == 0o600
    assert np.load(private).shape == (2, 24)
    dangling = tmp_path / "dangling.npy"
    dangling.symlink_to("new.npy")
    assert embed(documents, "-o", dangling).returncode == 0
    assert dangling.is_symlink()
    assert np.load(tmp_path / "new.npy").shape == (2, 24)
    assert not list(tmp_path.glob("*.part"))


@posix
@pytest.mark.parametrize("name", ["pipe.jsonl", "pipe.npy", "pipe"])
def test_c2_a_pipe_is_written_into(documents, tmp_path, name):
    pipe = tmp_path / name
    os.mkfifo(pipe)
    with start("embed", documents, "-o", pipe, "--path", MODEL) as child:
        content = pipe.read_bytes()
        assert child.communicate(timeout=patience(60)) == (b"", b"")
    assert pipe.is_fifo()
    if name.endswith(".npy"):
        (tmp_path / "copy.npy").write_bytes(content)
        assert np.load(tmp_path / "copy.npy").shape == (2, 24)
    else:
        assert [json.loads(line)["index"] for line in content.splitlines()] == [0, 1]


@posix
def test_c2_devices_are_written_into(documents, tmp_path):
    device = os.stat("/dev/null")  # noqa: PTH116
    link = tmp_path / "null.npy"
    link.symlink_to("/dev/null")
    for output in ("/dev/null", link):
        assert embed(documents, "-o", output).returncode == 0
    assert os.path.samestat(os.stat("/dev/null"), device)  # noqa: PTH116
    expected = embed(documents).stdout
    assert embed(documents, "-o", "/dev/stdout").stdout == expected
    assert shell('"$@" > out.txt; "$@" >> out.txt', "embed", documents, "-o", "/dev/stdout", "--path", MODEL,
                 cwd=tmp_path).stderr == ""  # fmt: skip
    assert (tmp_path / "out.txt").read_text() == expected * 2
    if os.path.exists("/dev/full"):  # noqa: PTH110
        done = embed(documents, "-o", "/dev/full")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == "fastrank: [Errno 28] No space left on device: '/dev/full'\n"


@posix
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "nodir" / "v.npy", "there is no folder"),
        (lambda folder: made(folder / "v.npy"), "is a folder"),
        (lambda folder: folder / "v.csv", "the name must end in .npy, .jsonl or .parquet"),
        (lambda folder: loop(folder / "loop.npy"), "loop.npy"),
    ],
)
def test_c2_an_output_that_cannot_be_is_refused_at_once(documents, tmp_path, make, message):
    folder = tmp_path / "folder"
    folder.mkdir()
    done = embed(documents, "-o", make(folder))
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def made(path):
    path.mkdir()
    return path


def loop(path):
    path.symlink_to(path.name)
    return path


# -- C3: signals ------------------------------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
@pytest.mark.parametrize("old", [None, b"old"])
def test_c3_a_signal_leaves_nothing_half(tmp_path, name, old):
    output = tmp_path / "vectors.npy"
    if old:
        output.write_bytes(old)
    with start("embed", "-o", output, "--path", MODEL, preexec_fn=default_signals) as child:
        child.stdin.write(b"a document\n" * 5000)
        child.stdin.flush()
        wait_until(lambda: list(tmp_path.glob("*.part")))
        child.send_signal(getattr(signal, name))
        out, err = child.communicate(timeout=patience(30))
    assert child.returncode == 128 + getattr(signal, name)
    assert (out, err) == (b"", b"")
    assert [path.name for path in tmp_path.glob("vectors*")] == (["vectors.npy"] if old else [])
    assert old is None or output.read_bytes() == old


def default_signals():
    """What a login shell gives a program; a test runner may ignore some."""
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_DFL)


@posix
def test_c3_nohup_is_respected(tmp_path):
    output = tmp_path / "vectors.npy"
    with start("embed", "-o", output, "--path", MODEL,
               preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)) as child:  # fmt: skip
        child.stdin.write(b"a document\n" * 5000)
        child.stdin.flush()
        wait_until(lambda: list(tmp_path.glob("*.part")))
        child.send_signal(signal.SIGHUP)
        assert child.communicate(timeout=patience(30)) == (b"", b"")
    assert child.returncode == 0
    assert np.load(output).shape == (5000, 24)


@posix
def test_c3_a_signal_leaves_nothing_of_a_pack(tmp_path):
    model, scratch = tmp_path / "model", tmp_path / "scratch"
    scratch.mkdir()
    model.mkdir()
    for path in (support.FIXTURES / "sentence_encoder").iterdir():
        if path.is_file():
            (model / path.name).write_bytes(path.read_bytes())
    (model / "LICENSE").write_bytes(os.urandom(1 << 26))  # takes long enough to compress
    command = ("pack", "acme/own", "--path", model, "-o", tmp_path / "dist")
    with start(*command, env={**os.environ, "TMPDIR": str(scratch)}, preexec_fn=default_signals) as child:
        wait_until(lambda: list(scratch.rglob("*.whl")))
        child.send_signal(signal.SIGTERM)
        out, err = child.communicate(timeout=patience(30))
    assert (child.returncode, out, err) == (128 + signal.SIGTERM, b"", b"")
    assert not list(scratch.iterdir())
    assert not list((tmp_path / "dist").glob("*"))


# -- C4: standard streams that are closed -----------------------------------------------------------------------------


@posix
def test_c4_closed_standard_streams(documents, tmp_path):
    vectors = tmp_path / "vectors.npy"
    closed_in = shell('"$@" <&-', "embed", "--path", MODEL)
    assert (closed_in.returncode, closed_in.stdout) == (1, "")
    assert closed_in.stderr == "fastrank: standard input is closed. Name a file with the documents\n"
    closed_out = shell('"$@" >&-', "embed", documents, "--path", MODEL)
    assert closed_out.returncode == 1
    assert closed_out.stderr == (
        "fastrank: standard output is closed. Redirect it to a file, or name one with --output\n"
    )
    closed_error = shell('"$@" 2>&-', "embed", "no/such/file", "--path", MODEL)
    assert (closed_error.returncode, closed_error.stdout) == (1, "")
    for redirection in (">&-", "<&-", "2>&-", "<&- >&- 2>&-"):
        done = shell(f'"$@" {redirection}', "embed", documents, "-o", vectors, "--path", MODEL)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), redirection
        assert np.load(vectors).shape == (2, 24)
        vectors.unlink()
    for command in ("models", "cache", "--help"):
        assert "Traceback" not in shell('"$@" >&-', command).stderr


@posix
def test_c4_readers_that_stop_reading(documents):
    for command in (
        ("models",),
        ("rerank", "cat", documents, "--method", "bm25"),
        ("embed", documents, "--path", MODEL),
    ):
        done = shell('"$@" | true', *command)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    nobody = shell('"$@" 2>&1 >/dev/null | true', "embed", "no/such/file", "--path", MODEL)
    assert nobody.stderr == ""


# -- C5: texts on a terminal ------------------------------------------------------------------------------------------

EVIL = "\x1b]0;title\x07\x1b[2J\x9b31mred \u202eright to left\u2066 del\x7f back\x08 cr\rX 中文 é"


def on_terminal(*arguments, columns=80, keys=b"", **environment):
    """What a command writes to a terminal, (status, text)."""
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    settings = {**os.environ, "NO_COLOR": "1", "TERM": "xterm", "COLUMNS": str(columns), **environment}
    command = [sys.executable, "-m", "fastrank", *map(str, arguments)]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=settings) as child:
        os.close(theirs)
        os.write(ours, keys)
        content = b""
        while True:
            try:
                block = os.read(ours, 1 << 16)
            except OSError:  # Linux says so when the other end is closed
                break
            if not block:
                break
            content += block
        status = child.wait(timeout=patience(60))
    os.close(ours)
    return status, content.decode().replace("\r\n", "\n")


@posix
@pytest.mark.parametrize("options", [(), ("--json",)])
def test_c5_a_terminal_gets_no_control_characters_of_texts(tmp_path, options):
    path = tmp_path / "evil.json"
    path.write_text(json.dumps([EVIL]), encoding="utf-8")
    status, out = on_terminal("rerank", "left", path, "--method", "bm25", "--format", "json", *options, columns=160)
    assert status == 0
    assert not set(out) & set("\x1b\x07\x9b\u202e\u2066\x7f\x08\r")
    assert "中文 é" in out
    if options:
        assert json.loads(out)["text"] == EVIL
    else:
        assert r"\x1b]0;title\x07\x1b[2J\x9b31mred \u202eright" in out
    piped = run_python("-m", "fastrank", "rerank", "red", path, "--method", "bm25", encoding="utf-8")
    assert json.loads(piped.stdout)["text"] == EVIL
    path.write_text('[{"\\u001b[31m": "x", "b": 1}]', encoding="utf-8")
    status, out = on_terminal("rerank", "red", path, "--method", "bm25")
    assert status == 1
    assert r"it has \x1b[31m, b" in out.lower()


@posix
def test_c5_wide_letters_fit_the_terminal(tmp_path):
    path = tmp_path / "wide.txt"
    path.write_text("red " + "中文字" * 100 + "\n", encoding="utf-8")
    _, out = on_terminal("rerank", "red", path, "--method", "bm25", columns=60)
    line = out.splitlines()[-1]
    assert line.endswith("…")
    assert 50 <= sum(2 if "\u4e00" <= letter <= "\u9fff" else 1 for letter in line) <= 60


@posix
def test_c5_colours_and_progress_are_for_terminals(tmp_path):
    path = tmp_path / "many.txt"
    path.write_text("the red cat\n" * 40000, encoding="utf-8")
    command = ("rerank", "red", path, "--method", "dense", "--top-k", "1", "--path", MODEL)
    _, out = on_terminal(*command, NO_COLOR="", FASTRANK_PROGRESS="")
    assert "\x1b[1m" in out
    assert re.search(r"embed: +\d+%\|.*\| \d+/40000 \[\d\d:\d\d<\d\d:\d\d, .*doc/s\]", out)
    for setting in ({"NO_COLOR": "1"}, {"NO_COLOR": "", "TERM": "dumb"}):
        _, out = on_terminal(*command, **setting)
        assert "\x1b[1m" not in out
    _, out = on_terminal("embed", path, "-o", tmp_path / "v.npy", "--path", MODEL, FASTRANK_PROGRESS="")
    assert re.search(r"embed: .*/40000 \[", out)
    piped = run_python("-m", "fastrank", *command)
    assert piped.stderr == ""
    assert "\x1b" not in piped.stdout


# -- C6: a query that was forgotten -----------------------------------------------------------------------------------


@posix
def test_c6_a_forgotten_query_does_not_wait_for_documents(documents):
    status, out = on_terminal("rerank", documents)
    assert status == 1
    assert out == (
        f"fastrank: {documents} is a file, and the query is missing. Run: fastrank rerank QUERY {documents}\n"
    )
    status, out = on_terminal("rerank", "red", "--method", "bm25", keys=b"the red cat\n\x04")
    assert status == 0
    assert "fastrank: reading documents from the terminal, one a line; end with Ctrl-D\n" in out
    assert "  the red cat\n" in out


# -- C7: bytes that are no text ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "caf\xe9\n".encode("latin-1"),
            ":1: not UTF-8: byte 0xe9. State the file's encoding, such as --encoding cp1252",
        ),
        (b"one\ntwo\n\xff\xfe\n", ":3: not UTF-8: byte 0xff"),
        ("one\ntwo\n".encode("utf-16-le"), ":1: has a NUL byte: it is binary, or UTF-16 without a byte order mark"),
        (b"x\n" * 5000 + b"\0\n", ":5001: has a NUL byte"),
        (b"\x1f\x8b\x08\x00\x00\x00", ": is compressed with gzip, not text"),
        (b"\xff\xfe" + "one\ntwo".encode("utf-16-le") + b"\n", ":2: not UTF-16: byte 0x0a"),
    ],
)
def test_c7_bytes_that_are_no_text_are_refused_with_file_and_line(tmp_path, content, message):
    path, output = tmp_path / "documents.txt", tmp_path / "vectors.npy"
    path.write_bytes(content)
    done = embed(path, "-o", output)
    assert done.returncode == 1
    assert done.stderr.startswith(f"fastrank: {path}{message}")
    assert not output.exists()
