"""Rows R1 to R12: threads, forks, worker processes, devices, memory and the import."""

import itertools
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest
from support import analyzers
from support.pinned_model import REPO
from support.processes import ends_well, python, run_python
from support.waiting import patience, wait_until

from fastrank import Device, SparseTextEmbedding, TextEmbedding
from fastrank.engine import cpu
from fastrank.errors import ProviderError

TEXTS = ["hello world", "the cat", "", "fast red dog in paris " * 20, "rank the documents for a query", "é 中 😀"]


def rows(vectors):
    return np.stack(list(vectors))


# -- one model, many threads ------------------------------------------------------------------------------------------


def test_r1_sixteen_threads_get_what_one_gets(model):
    expected = rows(model.embed(TEXTS))
    found = [None] * 16

    def work(n):
        for _ in range(10):
            found[n] = rows(model.embed(TEXTS))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for each in found:
        np.testing.assert_array_equal(each, expected)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8, 256])
def test_r10_a_vector_does_not_depend_on_its_neighbours(model, batch_size):
    texts = [f"{word} {'cat ' * n}" for n, word in enumerate(itertools.islice(itertools.cycle(TEXTS), 40))]
    alone = rows(next(model.embed(text)) for text in texts)
    for order in (range(40), range(39, -1, -1), random.Random(batch_size).sample(range(40), 40)):
        found = rows(model.embed([texts[n] for n in order], batch_size=batch_size))
        np.testing.assert_allclose(found, alone[list(order)], atol=1e-6)


# -- forks ------------------------------------------------------------------------------------------------------------

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def ends(child, seconds=30):
    """The exit status of a child process."""
    deadline = time.monotonic() + patience(seconds)
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            pytest.fail("a forked child does not end")
        time.sleep(0.02)


@forks
def test_r2_a_forked_child_makes_a_session_of_its_own(model):
    expected = rows(model.embed(TEXTS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of fork where there are threads
        child = os.fork()
    if child == 0:  # a forked child must leave by os._exit, whatever happens
        try:
            same = np.array_equal(rows(model.embed(TEXTS, parallel=1)), expected)
        except BaseException:  # noqa: BLE001
            same = False
        os._exit(0 if same else 1)
    assert ends(child) == 0
    np.testing.assert_array_equal(rows(model.embed(TEXTS)), expected)


@forks
@pytest.mark.parametrize("act", ["pass", "list(model.embed('cat'))", "model.close()", "del model"])
def test_r3_a_forked_child_may_end_as_any_process(tiny, act):
    """With a plain onnxruntime session it crashes or hangs when Python ends: its threads are not there any more."""
    code = f"""
import os
from fastrank import ModelSource, PoolingType, TextEmbedding
TextEmbedding.add_custom_model("acme/tiny", PoolingType.MEAN, True, ModelSource(hf="acme/tiny"), 16)
model = TextEmbedding("acme/tiny", specific_model_path={str(tiny)!r}, threads=4)
list(model.embed(["cat"] * 300))
if (child := os.fork()) == 0:
    {act}
    sys.exit(3)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert ends_well(python(code)) == "3"


# -- worker processes (BM25's: those of models are threads) -----------------------------------------------------------


def no_workers_left():
    return wait_until(lambda: not multiprocessing.active_children(), 10)  # it also collects those that have ended


def endless(taken):
    for number in itertools.count():
        taken.append(number)
        yield f"cat {number}"


def test_r4_a_killed_worker_is_an_error_and_leaves_no_orphans(bm25):
    vectors = bm25.embed(endless([]), parallel=2)
    next(vectors)
    os.kill(multiprocessing.active_children()[0].pid, getattr(signal, "SIGKILL", signal.SIGTERM))
    begin = time.monotonic()
    with pytest.raises(BrokenProcessPool):
        list(vectors)
    assert time.monotonic() - begin < patience(10)
    assert no_workers_left()


def test_r4_a_killed_parent_leaves_no_orphans():
    child = subprocess.Popen([sys.executable, "-c", EMBEDS_FOR_EVER], stdout=subprocess.PIPE, text=True)
    workers = json.loads(child.stdout.readline())
    child.kill()
    child.communicate()
    assert_gone(workers)


@pytest.mark.parametrize(
    ("analyzer", "error"), [(analyzers.words, LookupError), (analyzers.Unloadable(), BrokenProcessPool)]
)
def test_r5_an_error_in_a_worker_arrives(analyzer, error):
    model = SparseTextEmbedding("Qdrant/bm25", analyzer=analyzer)
    with pytest.raises(error):
        list(model.embed(["cat"] * 600 + ["fail"] + ["cat"] * 600, parallel=2))
    assert no_workers_left()


def test_r5_a_worker_that_dies(bm25):
    model = SparseTextEmbedding("Qdrant/bm25", analyzer=analyzers.words)
    with pytest.raises(BrokenProcessPool):
        list(model.embed(["cat"] * 600 + ["die"] + ["cat"] * 600, parallel=2))
    assert no_workers_left()


@pytest.mark.parametrize("parallel", [1, 2])
def test_r5_an_error_of_the_input_arrives_after_what_was_before_it(bm25, parallel):
    def broken():
        yield from ["cat"] * 900
        raise LookupError("midway")

    vectors = bm25.embed(broken(), parallel=parallel)
    assert len(list(itertools.islice(vectors, 900))) == 900
    with pytest.raises(LookupError, match="midway"):
        next(vectors)
    assert no_workers_left()


def test_r6_leaving_the_loop_ends_the_workers(bm25):
    taken = []
    vectors = bm25.embed(endless(taken), parallel=2)
    next(vectors)
    vectors.close()
    assert no_workers_left()
    assert len(taken) <= 256 * 2 * 2  # two groups a worker


def test_r6_leaving_the_loop_ends_the_threads_of_a_model(model):
    before, taken = threading.active_count(), []
    vectors = model.embed(endless(taken), parallel=4)
    next(vectors)
    vectors.close()
    assert wait_until(lambda: threading.active_count() == before)
    assert len(taken) == 256


EMBEDS_FOR_EVER = """
import itertools, json, multiprocessing
from fastrank import SparseTextEmbedding
if __name__ == "__main__":
    vectors = SparseTextEmbedding("Qdrant/bm25").embed((f"cat {n}" for n in itertools.count()), parallel=2)
    next(vectors)
    print(json.dumps([worker.pid for worker in multiprocessing.active_children()]), flush=True)
    for _ in vectors:
        pass
"""


def assert_gone(workers):
    """No worker outlives its parent."""
    wait_until(lambda: not any(map(alive, workers)), 10)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")  # it may have ended and nobody be there to collect it
    return not (stat.exists() and stat.read_text(encoding="ascii").rsplit(")", 1)[1].split()[0] == "Z")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("whom", ["the parent", "all of them"])
def test_r7_ctrl_c_ends_parent_and_workers(whom):
    child = subprocess.Popen(
        [sys.executable, "-c", EMBEDS_FOR_EVER],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    workers = json.loads(child.stdout.readline())
    assert len(workers) == 2
    begin = time.monotonic()
    (os.kill if whom == "the parent" else os.killpg)(child.pid, signal.SIGINT)
    _, errors = child.communicate(timeout=patience(60))
    assert time.monotonic() - begin < patience(5)
    assert child.returncode == -signal.SIGINT
    assert errors.count("Traceback") == errors.count("KeyboardInterrupt") == 1  # the parent's, no worker's
    assert_gone(workers)


STARTS_WORKERS = """
from fastrank import SparseTextEmbedding
def texts():
    print("reading", flush=True)
    while True:
        yield "a few words"
if __name__ == "__main__":
    for _ in SparseTextEmbedding("Qdrant/bm25").embed(texts(), parallel=2):
        pass
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("whom", ["the parent", "all"])
def test_r7_ctrl_c_while_workers_start(tmp_path, whom):
    program = tmp_path / "program.py"
    program.write_text(STARTS_WORKERS, encoding="utf-8")
    for moment in range(8):
        child = subprocess.Popen(
            [sys.executable, program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        child.stdout.readline()
        time.sleep(0.025 * moment)
        (os.kill if whom == "the parent" else os.killpg)(child.pid, signal.SIGINT)
        _, errors = child.communicate(timeout=patience(30))
        assert child.returncode == -signal.SIGINT
        assert errors.count("Traceback") == errors.count("KeyboardInterrupt") == 1, errors


# -- processors and devices -------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_r8_threads_are_the_processors_that_the_process_may_use(tiny):
    code = f"""
import os
from fastrank import ModelSource, PoolingType, TextEmbedding
os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}})
TextEmbedding.add_custom_model("acme/tiny", PoolingType.MEAN, True, ModelSource(hf="acme/tiny"), 16)
print(TextEmbedding("acme/tiny", specific_model_path={str(tiny)!r})._model.get().documents.session.threads)
"""
    assert ends_well(python(code)) == "1"


@pytest.mark.parametrize(("cpu_max", "threads"), [("50000 100000\n", 1), ("150000 100000\n", 2), ("max 100000\n", 8)])
def test_r8_threads_are_what_the_container_may_use(custom, tiny, tmp_path, monkeypatch, cpu_max, threads):
    """More of it in test_processors.py."""
    (tmp_path / "cpu.max").write_text(cpu_max)
    (tmp_path / "membership").write_text("0::/\n")
    quota = cpu._quota(tmp_path, tmp_path / "membership")
    monkeypatch.setattr(cpu, "_quota", lambda *_places: quota)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)), raising=False)
    assert TextEmbedding(custom(), specific_model_path=tiny)._model.get().documents.session.threads == threads


@pytest.fixture
def without_cuda():
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")


@pytest.mark.parametrize("cuda", [True, Device.CUDA, "cuda"])
def test_r9_cuda_that_is_not_there(custom, tiny, without_cuda, cuda):
    with pytest.raises(ProviderError) as error:
        TextEmbedding(custom(), specific_model_path=tiny, cuda=cuda)
    assert "CUDAExecutionProvider is not available. Available providers: [" in str(error.value)
    assert "'CPUExecutionProvider'" in str(error.value)
    assert "onnxruntime-gpu" in str(error.value)


@pytest.mark.parametrize("cuda", [False, Device.CPU, Device.AUTO, "auto"])
def test_r9_otherwise_the_cpu_in_silence(custom, tiny, without_cuda, cuda, capfd):
    with TextEmbedding(custom(), specific_model_path=tiny, cuda=cuda) as model:
        assert len(list(model.embed(TEXTS))) == len(TEXTS)
        assert model._model.get().documents.session.on_cpu
    assert capfd.readouterr() == ("", "")


# -- memory -----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="this system does not say what memory is resident")
def test_r11_memory_is_flat_over_2000_batches_of_random_length(tiny):
    code = f"""
import os, random
from fastrank import ModelSource, PoolingType, TextEmbedding
TextEmbedding.add_custom_model("acme/tiny", PoolingType.MEAN, True, ModelSource(hf="acme/tiny"), 16)
model = TextEmbedding("acme/tiny", specific_model_path={str(tiny)!r}, threads=2)
dice = random.Random(0)
def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
texts = ("cat " * dice.randint(1, 60) for _ in range(8000))
held = []
for number, _ in enumerate(model.embed(texts, batch_size=4), 1):
    if number in (800, 8000):
        held.append(resident())
print(held[1] - held[0])
"""
    assert int(ends_well(python(code))) < 10e6


# -- the import -------------------------------------------------------------------------------------------------------

ENTRANCES = ["import fastrank", "import fastrank.cli", "import fastrank; fastrank.ModelSource"]
# Of the standard library, what takes longest to import; huggingface_hub, numpy and onnxruntime are not of it.
SLOW = {"asyncio", "multiprocessing", "subprocess", "ssl", "http", "urllib.request", "email", "unittest", "ctypes"}


@pytest.mark.parametrize("statement", ENTRANCES)
def test_r12_importing_loads_nothing_heavy(statement):
    code = f"import sys; before = set(sys.modules); {statement}; print(*sorted(set(sys.modules) - before))"
    loaded = run_python("-c", code, check=True).stdout.split()
    assert {name.split(".")[0] for name in loaded} <= {*sys.stdlib_module_names, "fastrank"}
    assert not SLOW & set(loaded)
    assert "fastrank" in loaded


def test_r12_importing_takes_no_time():
    """Of the processor, the quickest of ten: anything else on the machine only adds to it."""
    code = "import time; begin = time.process_time(); import fastrank; print(time.process_time() - begin)"
    times = [float(subprocess.check_output([sys.executable, "-c", code], text=True)) for _ in range(10)]
    assert min(times) < 0.05


def test_r12_a_custom_model_needs_no_hub_library(tiny):
    code = f"""
from fastrank import ModelSource, PoolingType, TextEmbedding
TextEmbedding.add_custom_model("{REPO}", PoolingType.MEAN, True, ModelSource(hf="{REPO}"), 16)
list(TextEmbedding("{REPO}", specific_model_path={str(tiny)!r}).embed(["x"]))
print([m for m in sys.modules if m.startswith(("huggingface_hub", "httpx", "tqdm"))])
"""
    assert ends_well(python(code)) == "[]"
