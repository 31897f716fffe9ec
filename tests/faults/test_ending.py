"""Rows R13 to R20: forks, the end of Python, and files that change under a loaded model."""

import copy
import os
import shutil
import sys
import tempfile
import textwrap
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from support import FIXTURES, PACKAGE, REGISTRY, tiny_models
from support.processes import run_python
from support.waiting import patience

from fastrank import PoolingType, TextEmbedding

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

LOAD = """
import atexit, os, signal, sys, threading, time
from fastrank import PoolingType, TextEmbedding

def load(**options):
    return TextEmbedding("any/tiny", specific_model_path={folder!r}, pooling=PoolingType.MEAN, **options)

TEXTS = [f"cat {{'the ' * (n % 40)}}" for n in range(600)]

def ends(child, seconds={seconds}):
    deadline = time.monotonic() + seconds
    while not (found := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "hangs"
        time.sleep(0.02)
    return os.waitstatus_to_exitcode(found[1])
"""


def program(folder, code, *, first="", environment=None):
    """What a process prints that loads a model and runs `code`, and how it ends."""
    text = first + LOAD.format(folder=str(folder), seconds=patience(20)) + textwrap.dedent(code)
    done = run_python("-c", text, env={**os.environ, **(environment or {})})
    return done.stdout.strip(), done.returncode, done.stderr


@forks
@pytest.mark.parametrize("first", ["", "import onnxruntime\n"])
@pytest.mark.parametrize("telemetry", ["0", "1", None])
@pytest.mark.parametrize("status", [0, 3])
def test_r13_a_forked_child_ends_whoever_imported_onnxruntime_first(tiny, first, telemetry, status):
    environment = {} if telemetry is None else {"ORT_DISABLE_TELEMETRY": telemetry}
    code = f"""
        model = load()
        expected = next(model.embed("cat")).tolist()
        child = os.fork()
        if child == 0:
            assert next(model.embed("cat")).tolist() == expected
            sys.exit({status})
        print(ends(child))
    """
    if telemetry is None:
        environment = {"ORT_DISABLE_TELEMETRY": ""}
    assert program(tiny, code, first=first, environment=environment)[:2] == (str(status), 0)


@forks
def test_r14_a_fork_while_another_thread_loads(tiny):
    code = """
        hung = 0
        for moment in range(12):
            model = load(lazy_load=True)
            thread = threading.Thread(target=lambda: next(model.embed("cat")))
            thread.start()
            time.sleep(0.004 * moment)
            child = os.fork()
            if child == 0:
                len(next(model.embed("the cat")))
                sys.exit(0)
            hung += ends(child) != 0
            thread.join()
        print(hung)
    """
    assert program(tiny, code)[:2] == ("0", 0)


@forks
def test_r15_a_child_goes_on_with_its_parents_iterator(tiny):
    code = """
        model = load(threads=2)
        expected = [vector.tolist() for vector in model.embed(TEXTS)]
        vectors = model.embed(TEXTS)
        taken = [next(vectors).tolist() for _ in range(100)]
        child = os.fork()
        rest = [vector.tolist() for vector in vectors]
        same = len(taken + rest) == len(expected) and all(
            abs(a - b) < 1e-5 for x, y in zip(taken + rest, expected) for a, b in zip(x, y)
        )
        if child == 0:
            sys.exit(0 if same else 5)
        print(same, ends(child))
    """
    assert program(tiny, code)[:2] == ("True 0", 0)


@pytest.mark.parametrize(
    "code",
    [
        "threading.Thread(target=lambda: (time.sleep(0.2), print(len(list(load(threads=2).embed(TEXTS)))))).start()",
        "atexit.register(lambda: print(len(list(load(threads=2).embed(TEXTS)))))",
        "model = load(threads=2); atexit.register(lambda: print(len(list(model.embed(TEXTS)))))",
    ],
    ids=["a thread after the main one", "first load in atexit", "atexit"],
)
def test_r16_embedding_after_the_main_thread_has_ended(tiny, code):
    out, status, errors = program(tiny, code)
    assert (out, status) == ("600", 0), errors


def test_r17_a_daemon_thread_that_embeds_does_not_disturb_the_end(tiny):
    code = """
        model = load(threads=2)
        def forever():
            while True:
                list(model.embed(TEXTS))
        for _ in range(3):
            threading.Thread(target=forever, daemon=True).start()
        time.sleep(0.3)
        print("end")
    """
    for _ in range(3):
        out, status, errors = program(tiny, code)
        assert (out, status) == ("end", 0), errors


def other_model(folder):
    """The same model with other weights."""
    return tiny_models.write_model(folder, tiny_models.tiny_encoder(seed=7))


def swapped(folder, tmp_path):
    other_model(tmp_path / "new")
    folder.rename(tmp_path / "old")
    (tmp_path / "new").rename(folder)


def removed(folder, _tmp_path):
    shutil.rmtree(folder)


def cut(folder, _tmp_path):
    path = folder / "onnx" / "model.onnx"
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize("change", [swapped, removed, cut], ids=["swapped", "removed", "cut"])
def test_r18_files_that_change_under_a_loaded_model_never_mix(tmp_path, change):
    folder = tiny_models.write_model(tmp_path / "model")
    texts = [f"cat {'the ' * (n % 40)}" for n in range(300)]
    model = TextEmbedding("any/tiny", specific_model_path=folder, pooling=PoolingType.MEAN, threads=2)
    expected = np.stack(list(copy.copy(model).embed(texts)))
    before = next(model.embed("cat"))
    change(folder, tmp_path)
    for _ in range(3):
        np.testing.assert_array_equal(next(model.embed("cat")), before)
        np.testing.assert_allclose(np.stack(list(model.embed(texts))), expected, atol=1e-6)


@forks
def test_r18_a_forked_child_does_not_take_other_files(tiny, tmp_path):
    shutil.copytree(tiny, tmp_path / "model")
    code = f"""
        model = load()
        next(model.embed("cat"))
        os.rename({str(tmp_path / "model" / "onnx" / "model.onnx")!r}, {str(tmp_path / "old")!r})
        child = os.fork()
        if child == 0:
            try:
                next(model.embed("cat"))
            except Exception as error:
                print(type(error).__name__, error, flush=True)
            os._exit(0)
        ends(child)
    """
    out, status, errors = program(tmp_path / "model", code)
    assert status == 0, errors
    assert "model.onnx in " in out
    assert "changed since this model was loaded, so it cannot be opened again. Load the model again." in out


def test_r18_what_was_opened_needs_no_files(tmp_path):
    folder = tiny_models.write_model(tmp_path / "model")
    model = TextEmbedding("any/tiny", specific_model_path=folder, pooling=PoolingType.MEAN, threads=2)
    texts = [f"cat {'the ' * (n % 40)}" for n in range(300)]
    expected = np.stack(list(model.embed([*texts, "cat"])))
    shutil.rmtree(folder)
    np.testing.assert_array_equal(np.stack(list(model.embed([*texts, "cat"]))), expected)


@forks
@pytest.mark.skipif(not hasattr(os, "setuid") or os.getuid() != 0, reason="only root can become another user")
def test_r19_a_child_that_may_not_read_the_model_says_so(tmp_path):
    folder = tiny_models.write_model(tmp_path / "model")
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    code = """
        model = load()
        child = os.fork()
        if child == 0:
            os.setuid(65534)
            try:
                next(model.embed("cat"))
            except Exception as error:
                print(type(error).__name__, error, flush=True)
            os._exit(0)
        ends(child)
    """
    out, status, errors = program(folder, code)
    assert status == 0, errors
    assert "ModelLoadError" in out or "_FilesChangedError" in out
    assert "model.onnx" in out


def test_r20_ctrl_c_while_workers_run(tiny):
    code = """
        import itertools
        model = load(threads=2)
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
        try:
            for _ in model.embed(f"cat {n}" for n in itertools.count()):
                pass
        except KeyboardInterrupt:
            print("interrupted", len(list(model.embed(TEXTS))))
    """
    if sys.platform == "win32":
        pytest.skip("no such timer")
    begin = time.monotonic()
    assert program(tiny, code)[:2] == ("interrupted 600", 0)
    assert time.monotonic() - begin < patience(20)


def test_r21_bm25_where_no_processes_can_be_started():
    """In a worker of a Pool, in a thread after the main one, and in `atexit`."""
    code = """
        import atexit, multiprocessing, threading, time
        from fastrank import SparseTextEmbedding

        TEXTS = [f"cat {n} dog" for n in range(2000)]

        def embed(_=None):
            return sum(len(vector) for vector in SparseTextEmbedding("Qdrant/bm25").embed(TEXTS, parallel=2))

        if __name__ == "__main__":
            expected = sum(len(vector) for vector in SparseTextEmbedding("Qdrant/bm25").embed(TEXTS))
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                print(pool.map(embed, [1])[0] == expected)
            atexit.register(lambda: print(embed() == expected))
            threading.Thread(target=lambda: (time.sleep(0.2), print(embed() == expected))).start()
    """
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "program.py"
        program.write_text(textwrap.dedent(code))
        done = run_python(program)
    assert (done.stdout.split(), done.returncode) == (["True"] * 3, 0), done.stderr


def test_r22_the_package_runs_from_a_zip_file(tiny, tmp_path):
    with zipfile.ZipFile(tmp_path / "app.zip", "w") as archive:
        for path in PACKAGE.rglob("*"):
            if path.is_file() and path.suffix != ".pyc":
                archive.write(path, Path("fastrank") / path.relative_to(PACKAGE))
        if not REGISTRY.is_relative_to(PACKAGE):  # as in a wheel
            archive.write(REGISTRY, "fastrank/models/model_registry.json")
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path / "app.zip")!r})
import fastrank
assert ".zip" in fastrank.__file__, fastrank.__file__
from fastrank import PoolingType, SparseTextEmbedding, TextEmbedding
folder = {str(FIXTURES / "sentence_encoder")!r}
print(len(TextEmbedding.list_supported_models()) > 20)
print(len(next(SparseTextEmbedding("Qdrant/bm25", language="german").embed("der Hund"))))
print(len(next(TextEmbedding("any/zip", specific_model_path=folder, precision="int8").embed("cat"))))
"""
    done = run_python("-c", code, env={**os.environ, "PYTHONPATH": ""})
    assert (done.stdout.split(), done.returncode) == (["True", "1", "24"], 0), done.stderr
