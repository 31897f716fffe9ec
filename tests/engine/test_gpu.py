"""What is done for a GPU, with the CPU provider taken for one: nothing here has run on a card."""

import gc
import itertools
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from conftest import REAL
from support.checkpoints import EXPECTED, FIXTURES, HEADS, OUTPUTS, inputs_of, load
from support.waiting import patience, wait_until

import fastrank
from fastrank import (
    LateInteractionTextEmbedding,
    PoolingType,
    SparseTextEmbedding,
    TextCrossEncoder,
    TextEmbedding,
    graph,
)
from fastrank.engine import pinned_memory, providers
from fastrank.engine.batching import Batch, step
from fastrank.engine.concurrency import ahead
from fastrank.engine.options import Options
from fastrank.engine.pinned_memory import HostMemory
from fastrank.engine.providers import GPU_LIMITS, ExecutionDevice, devices, find_cuda
from fastrank.engine.session import Model, Session
from fastrank.errors import ModelLoadError, ProviderError

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
FOLDERS = FIXTURES.parent
TEXTS = ["hello world", "the cat", "", "fast red dog in paris " * 20, "rank the documents for a query", "é 中 😀"]


class Runtime:
    """Stands for CUDA's runtime, and notes what is locked."""

    def __init__(self, status=0):
        self.locked, self.devices, self._status = {}, set(), status

    def cudaSetDevice(self, device):  # noqa: N802
        self.devices.add(device)
        return 0

    def cudaHostRegister(self, pointer, size, _flags):  # noqa: N802
        assert pointer.value % 4096 == 0
        assert pointer.value not in self.locked
        if not self._status:
            self.locked[pointer.value] = size.value
        return self._status

    def cudaHostUnregister(self, pointer):  # noqa: N802
        del self.locked[pointer.value]
        return 0

    def memory(self):
        return HostMemory(lambda *block: pinned_memory._cuda_lock(self, 0, *block))


class Card(ExecutionDevice):
    """The CPU provider, run as a GPU is."""

    def __init__(self, runtime, name=""):
        super().__init__([CPU], name)
        self._runtime = runtime

    only_cpu = False

    def runs_on_cpu(self, _session):
        return False

    def limits(self, _session):
        return self._runtime.limits

    def runner(self, session, *, sized):
        return partial(pinned_memory.run, session, memory=self._runtime.memory(), sized=sized)


@pytest.fixture
def gpu(monkeypatch):
    """Take the CPU provider for CUDA, with as many devices as are named."""
    runtime = Runtime()
    runtime.limits = GPU_LIMITS
    monkeypatch.setattr(
        providers, "devices", lambda options, _available: [Card(runtime, f"GPU {n}") for n in options.devices or [0]]
    )
    return runtime


@pytest.fixture
def tiny_model(tiny):
    def make(max_length=64, **options):
        return TextEmbedding(
            "any/tiny", specific_model_path=tiny, pooling=PoolingType.MEAN, max_length=max_length, **options
        )

    return make


def rows(vectors):
    return np.stack(list(vectors))


def many(number):
    return [f"{text} {'cat ' * (n % 37)}" for n, text in zip(range(number), itertools.cycle(TEXTS), strict=False)]


# -- the same results -------------------------------------------------------------------------------------------------


def dense(**options):
    model = TextEmbedding("any/dense", specific_model_path=FOLDERS / "sentence_encoder", **options)
    return model, rows(model.embed(many(300)))


def sparse(**options):
    model = SparseTextEmbedding("any/sparse", specific_model_path=FOLDERS / "sparse_encoder", **options)
    vectors = np.zeros((60, 10_000), np.float32)
    for row, vector in zip(vectors, model.embed(many(60)), strict=True):
        row[vector.indices] = vector.values
    return model, vectors


def late(**options):
    folder = FOLDERS / "late_interaction" / "pylate_modernbert"
    model = LateInteractionTextEmbedding("any/late", specific_model_path=folder, **options)
    return model, np.concatenate([*model.embed(many(60)), *model.query_embed("where is paris")])


def pairs(**options):
    model = TextCrossEncoder("any/pairs", specific_model_path=FOLDERS / "pair_classifier", **options)
    return model, np.array(list(model.rerank("what is a cat", many(60))))[:, None]


ALL = pytest.mark.parametrize("task", [dense, sparse, late, pairs], ids=lambda task: task.__name__)


@ALL
def test_results_are_those_of_a_cpu(task, request):
    model, expected = task(precision="fp32")
    assert model.info()["provider"] == CPU
    assert "devices" not in model.info()
    request.getfixturevalue("gpu")
    model, found = task(precision="fp32")
    assert model.info()["devices"] == 1
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@ALL
def test_fp16_is_near(task, request):
    model, expected = task(precision="fp32")
    request.getfixturevalue("gpu")
    model, found = task(precision="fp16")
    assert model.info()["precision"] == "fp16"
    assert not np.array_equal(found, expected)
    if task is pairs:
        np.testing.assert_allclose(found, expected, rtol=0, atol=0.02)
    else:
        lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
        assert ((found * expected).sum(axis=1) / lengths).min() >= 0.9999


@ALL
def test_fp16_on_a_cpu_is_fp32_and_says_so(task):
    _, expected = task(precision="fp32")
    model, found = task(precision="fp16")
    assert np.array_equal(found, expected)
    assert model.info()["precision"] == "fp32"
    assert model.info()["reason"].endswith("fp16 is for GPUs, and this runs on a CPU")


def test_fp16_of_static_embeddings(request):
    folder = FOLDERS / "static" / "model2vec"
    expected = rows(TextEmbedding("any/static", specific_model_path=folder).embed(TEXTS))
    assert np.array_equal(
        rows(TextEmbedding("any/static", specific_model_path=folder, precision="fp16").embed(TEXTS)), expected
    )
    request.getfixturevalue("gpu")
    model = TextEmbedding("any/static", specific_model_path=folder, precision="fp16")
    assert model.info()["precision"] == "fp16"
    np.testing.assert_allclose(rows(model.embed(TEXTS)), expected, rtol=0, atol=1e-3)


def test_fp16_of_a_graph_is_the_graph(tiny_model, gpu):
    assert tiny_model(precision="fp16").info()["reason"] == "the only file available is onnx/model.onnx"


@pytest.mark.real_model
def test_real_vectors_in_fp16(real_model_folder, request):
    texts = (Path(fastrank.__file__).parent / "cli" / "films.txt").read_text().splitlines()
    expected = rows(TextEmbedding(REAL, specific_model_path=real_model_folder, cuda=False).embed(texts))
    request.getfixturevalue("gpu")
    found = rows(TextEmbedding(REAL, specific_model_path=real_model_folder, precision="fp16").embed(texts))
    assert not np.array_equal(found, expected)
    assert (found * expected).sum(axis=1).min() > 0.99999


# -- binding ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "head"), HEADS)
def test_bound_runs_have_the_same_bits(name, head):
    plain, runtime = load(FIXTURES / name, head), Runtime()
    memory = runtime.memory()
    for case in EXPECTED[name].values():
        feed = inputs_of(case)
        for output in OUTPUTS[head]:
            (expected,) = plain.run([output], feed)
            for sized in (True, False):
                for place in (memory, HostMemory()):
                    found = pinned_memory.run(plain, output, feed, memory=place, sized=sized)
                    assert found.dtype == np.float32
                    assert np.array_equal(found, expected, equal_nan=True)
    assert runtime.locked


def test_a_graph_that_says_nothing_of_its_sizes_runs_too(tiny):
    """Names of sizes that the inputs do not have, and an output that is not float32."""
    plain = load_graph(tiny / "onnx" / "model.onnx")
    ids = np.array([[4, 9, 5]])
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    assert pinned_memory._shape(plain, "last_hidden_state", feed) == [1, 3, 16]
    for value in ("last_hidden_state",):
        for stated in (["n", "length", 16], ["texts", None, 16]):
            other = Stated(plain, stated)
            assert pinned_memory._shape(other, value, feed) is None
            found = pinned_memory.run(other, value, feed, memory=HostMemory(), sized=True)
            assert np.array_equal(found, plain.run([value], feed)[0])


def load_graph(path):
    import onnxruntime

    return onnxruntime.InferenceSession(str(path), providers=[CPU])


class Stated:
    """A session that states other sizes of its output."""

    def __init__(self, plain, shape):
        self._plain, self._shape = plain, shape

    def __getattr__(self, name):
        return getattr(self._plain, name)

    def get_outputs(self):
        (output,) = self._plain.get_outputs()
        return [type("Output", (), {"name": output.name, "type": output.type, "shape": self._shape})]


def test_threads_share_a_session_and_its_memory():
    plain, runtime = load(FIXTURES / "bert"), Runtime()
    memory = runtime.memory()
    cases = [inputs_of(case) for case in EXPECTED["bert"].values()]
    expected = [plain.run(None, feed)[0] for feed in cases]

    def work(_):
        return [pinned_memory.run(plain, "last_hidden_state", feed, memory=memory, sized=True) for feed in cases * 20]

    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(work, range(8)):
            for each, wanted in zip(found, expected * 20, strict=True):
                assert np.array_equal(each, wanted)
    assert sum(runtime.locked.values()) <= pinned_memory._MOST


def test_blocks_are_used_again_and_given_back_at_the_end():
    plain, runtime = load(FIXTURES / "bert"), Runtime()
    memory = runtime.memory()
    feed = inputs_of(EXPECTED["bert"]["padded"])
    for _ in range(500):
        kept = pinned_memory.run(plain, "last_hidden_state", feed, memory=memory, sized=True)
    assert len(runtime.locked) == len(feed) + 2  # one that is kept, one that is written
    first = kept[0, :2]
    before = first.copy()
    del kept
    for _ in range(20):
        pinned_memory.run(plain, "last_hidden_state", feed, memory=memory, sized=True)
    assert np.array_equal(first, before)  # a view keeps its block
    del memory, first
    gc.collect()
    assert not runtime.locked


def test_no_more_is_locked_than_a_limit(monkeypatch):
    monkeypatch.setattr(pinned_memory, "_MOST", 3 << 16)
    runtime = Runtime()
    memory = runtime.memory()
    kept = [memory.empty((1000,), np.float32) for _ in range(10)]
    assert len(runtime.locked) == 3
    for number, each in enumerate(kept):
        each[:] = number
    assert [each.sum() for each in kept] == [1000.0 * number for number in range(10)]


@pytest.mark.parametrize("place", [HostMemory(), Runtime(status=2).memory(), pinned_memory.cuda_memory(0)])
def test_memory_that_cannot_be_locked_is_ordinary_memory(place):
    made = [place.empty((3, 5), np.float32), place.copy(np.arange(6).reshape(2, 3)), place.copy(np.array(7))]
    assert [each.shape for each in made] == [(3, 5), (2, 3), ()]
    assert made[1].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert made[2] == 7


def test_the_device_is_the_sessions(monkeypatch):
    """Locking memory must not set up the first card for who uses the second."""
    runtime, plain = Runtime(), load(FIXTURES / "bert")

    class OnThirdCard:
        def __getattr__(self, name):
            return getattr(plain, name)

        def get_providers(self):
            return [CUDA, CPU]

        def get_provider_options(self):
            return {CUDA: {"device_id": "3"}}

    monkeypatch.setattr(pinned_memory, "_cuda_runtime", lambda: runtime)
    run = ExecutionDevice([CUDA, CPU]).runner(OnThirdCard(), sized=True)
    assert len(run("last_hidden_state", inputs_of(EXPECTED["bert"]["one"]))) == 1
    assert runtime.devices == {3}


def bert(**options):
    return Session(
        Model(FIXTURES / "bert" / "model.safetensors", lambda: graph.build(FIXTURES / "bert")), Options(**options)
    )


def batch(texts, length):
    ids = np.full((texts, length), 5)
    return Batch(range(texts), ids, np.ones_like(ids), np.zeros_like(ids))


def test_an_error_names_the_batch(gpu):
    with pytest.raises(ModelLoadError, match=r"model.safetensors failed on a batch of 2x99 tokens: "):
        bert().run(batch(2, 99))


def test_a_forked_child_has_memory_of_its_own(gpu):
    """Blocks are shared with the parent: what a child writes, the parent reads."""
    loaded = bert()
    expected = loaded.run(batch(2, 7)).copy()
    before = set(gpu.locked)
    loaded.leave_to_parent()  # what happens in the child
    found = loaded.run(batch(2, 7))
    assert before < set(gpu.locked)
    assert all(not start <= found.ctypes.data < start + gpu.locked[start] for start in before)
    assert np.array_equal(found, expected)


# -- batches ----------------------------------------------------------------------------------------------------------


def test_steps_of_length():
    lengths = [step(n) for n in range(1, 8193)]
    assert all(n <= length and length % 8 == 0 for n, length in enumerate(lengths, 1))
    assert sorted({length for length in lengths if length <= 512}) == [
        *range(8, 129, 8),
        *range(144, 257, 16),
        *range(288, 513, 32),
    ]
    waste = np.array([length / n - 1 for n, length in enumerate(lengths, 1) if n > 64])
    assert waste.mean() < 0.05
    assert waste.max() < 0.125


@pytest.fixture
def shapes(monkeypatch):
    """The shapes that run."""
    seen = []

    def run(plain, output, feed, *arguments, real=pinned_memory.run, **options):
        seen.append(feed["input_ids"].shape)
        return real(plain, output, feed, *arguments, **options)

    monkeypatch.setattr(pinned_memory, "run", run)
    return seen


def test_lengths_repeat_and_batches_are_large(tiny_model, gpu, shapes):
    list(tiny_model(max_length=500).embed(many(2000), batch_size=512))
    assert {length for _, length in shapes} <= set(map(step, range(1, 501)))
    assert all(texts * length <= 16_384 and texts <= 512 for texts, length in shapes)
    assert max(texts * length for texts, length in shapes) > 16_384 * 0.95
    shapes.clear()
    list(tiny_model(max_length=500).embed(many(100), batch_size=3))
    assert max(texts for texts, _ in shapes) == 3


def test_long_texts_make_small_batches(tiny_model, gpu, shapes, monkeypatch):
    gpu.limits = GPU_LIMITS._replace(square=499 * 1000)
    list(tiny_model(max_length=500).embed(["cat " * 600, "cat " * 490, *["cat " * 10] * 100]))
    assert sorted(shapes) == [(1, 500), (1, 500), (100, 16)]


def test_padding_never_goes_past_the_limit(tiny_model, gpu, shapes):
    list(tiny_model(max_length=21).embed(["cat " * 50, "cat " * 15, "cat"], batch_size=1))
    assert sorted(length for _, length in shapes) == [8, 21, 21]


def test_wide_outputs_make_small_batches(gpu):
    def budget(width):
        loaded = bert()
        loaded._widest = width
        return loaded.budget

    assert budget(768) == 16_384
    assert budget(30_522) == 2_198  # 256 MiB of float32
    assert budget(250_002) == 512


# -- several devices --------------------------------------------------------------------------------------------------


@pytest.fixture
def runs(monkeypatch):
    """Each run as (session, runs of that session at the same time)."""
    seen, busy, guard = [], {}, threading.Lock()

    def run(plain, *arguments, real=pinned_memory.run, **options):
        with guard:
            busy[plain] = busy.get(plain, 0) + 1
            seen.append((plain, busy[plain]))
        time.sleep(0.01)
        try:
            return real(plain, *arguments, **options)
        finally:
            with guard:
                busy[plain] -= 1

    monkeypatch.setattr(pinned_memory, "run", run)
    return seen


def test_every_device_is_busy_and_the_order_is_kept(tiny_model, gpu, runs):
    texts = many(600)
    expected = rows(tiny_model().embed(texts, batch_size=8))
    runs.clear()
    model = tiny_model(device_ids=[0, 1, 2])
    assert model.info()["devices"] == 3
    np.testing.assert_allclose(rows(model.embed(texts, batch_size=8)), expected, rtol=0, atol=1e-6)
    by_device = [[together for plain, together in runs if plain is each] for each in {plain for plain, _ in runs}]
    assert len(by_device) == 3
    for each in by_device:
        assert len(each) > len(runs) / 5
        assert max(each) == 2  # one is copied while the other computes


def test_an_error_of_one_device_arrives_and_names_it(tiny_model, gpu, monkeypatch):
    devices, failed = [], threading.Event()

    def run(plain, *arguments, real=pinned_memory.run, **options):
        devices.append(plain)
        if plain is not devices[0]:
            failed.set()
            raise RuntimeError("out of memory")
        failed.wait(patience(5))  # on a busy machine the first would do all the work before the second begins
        return real(plain, *arguments, **options)

    monkeypatch.setattr(pinned_memory, "run", run)
    model = tiny_model(device_ids=[3, 5])
    with pytest.raises(ModelLoadError, match=r"failed on a batch of 8x\d+ tokens on GPU 5: out of memory"):
        list(model.embed(many(600), batch_size=8))


def test_one_session_a_device(monkeypatch):
    available = [CUDA, CPU]
    exact = {"use_tf32": 0}
    (one,) = devices(Options(cuda=True), available)
    assert one.providers == [(CUDA, exact), CPU]
    assert [device.providers for device in devices(Options(cuda=True, device_ids=[1, 3]), available)] == [
        [(CUDA, {"device_id": number, **exact}), CPU] for number in (1, 3)
    ]
    own = [(CUDA, {"use_tf32": 1})]
    assert [device.providers for device in devices(Options(providers=own), available)] == [own]


@pytest.fixture
def no_card(monkeypatch):
    """An onnxruntime with CUDA on a machine that has the libraries and no card."""
    import onnxruntime

    def open_session(*arguments, providers, real=onnxruntime.InferenceSession, **options):
        if providers[0] != CPU:
            raise RuntimeError("CUDA failure 100: no CUDA-capable device is detected")
        return real(*arguments, providers=providers, **options)

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(onnxruntime, "InferenceSession", open_session)
    monkeypatch.setattr(providers, "find_cuda", lambda _module: None)


@pytest.mark.parametrize("devices", [None, [0, 1]])
def test_without_a_card_the_cpu_in_silence(tiny_model, no_card, capfd, devices):
    model = tiny_model(device_ids=devices)
    assert len(rows(model.embed(many(40)))) == 40
    assert model.info()["provider"] == CPU
    assert "devices" not in model.info()
    assert capfd.readouterr() == ("", "")


def test_without_a_card_who_demands_it_is_told(tiny_model, no_card, capfd):
    with pytest.raises(ProviderError, match=r"cannot start .*CUDA.*: CUDA failure 100: no CUDA-capable device"):
        tiny_model(cuda=True)
    assert capfd.readouterr() == ("", "")


class ModuleWith:
    """An onnxruntime that can load libraries."""

    def __init__(self, preload_dlls):
        self.preload_dlls = preload_dlls


@pytest.mark.parametrize(("torch", "wheels", "called"), [(0, 1, 1), (1, 1, 0), (0, 0, 0)])
def test_cuda_of_pip_is_found(monkeypatch, capsys, torch, wheels, called):
    calls = []

    def preload_dlls():
        calls.append(1)
        sys.stdout.write("Failed to load libcufft")

    monkeypatch.delitem(sys.modules, "torch", raising=False)
    if torch:
        monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name if wheels else None)
    find_cuda(ModuleWith(preload_dlls))
    assert len(calls) == called
    assert capsys.readouterr().out == ""


# -- reading ahead ----------------------------------------------------------------------------------------------------


def test_the_next_window_is_tokenized_while_this_one_runs(tiny_model, gpu, monkeypatch):
    gpu.limits = GPU_LIMITS._replace(window=256)
    threads, running, overlaps = set(), threading.Event(), []

    def watched_run(*arguments, real=pinned_memory.run, **options):
        running.set()
        time.sleep(0.05)
        running.clear()
        return real(*arguments, **options)

    monkeypatch.setattr(pinned_memory, "run", watched_run)
    model = tiny_model()
    tokenizer = model._model.get().documents.tokenizer
    encode = tokenizer.encode

    def watched_encode(texts):
        threads.add(threading.current_thread().name)
        overlaps.append(running.wait(patience(5)) if len(threads) > 1 else False)
        return encode(texts)

    monkeypatch.setattr(tokenizer, "encode", watched_encode)
    assert len(list(model.embed(many(1000)))) == 1000
    assert len(overlaps) == 4
    assert overlaps[1:] == [True] * 3
    assert len(threads) == 2


def test_two_windows_are_read_and_no_more(tiny_model, gpu, monkeypatch):
    gpu.limits = GPU_LIMITS._replace(window=256)
    taken = itertools.count()
    before = threading.active_count()
    vectors = tiny_model().embed(f"cat {next(taken)}" for _ in itertools.count())
    next(vectors)
    assert next(taken) == 512
    vectors.close()
    assert wait_until(lambda: threading.active_count() == before)


def test_what_comes_before_an_error_is_delivered(tiny_model, gpu, monkeypatch):
    gpu.limits = GPU_LIMITS._replace(window=256)

    def broken():
        yield from many(700)
        raise LookupError("midway")

    vectors = tiny_model().embed(broken())
    assert len(list(itertools.islice(vectors, 700))) == 700
    with pytest.raises(LookupError, match="midway"):
        next(vectors)


def test_the_callers_iterable_is_read_by_the_callers_thread(tiny_model, gpu, monkeypatch):
    gpu.limits = GPU_LIMITS._replace(window=256)
    readers = set()

    def texts():
        for text in many(900):
            readers.add(threading.current_thread())
            yield text

    assert len(list(tiny_model().embed(texts()))) == 900
    assert readers == {threading.current_thread()}


def test_an_interrupt_while_reading_ends_all(tiny_model, gpu, monkeypatch):
    gpu.limits = GPU_LIMITS._replace(window=256)
    before = threading.active_count()

    def interrupted():
        yield from many(700)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(tiny_model().embed(interrupted()))
    assert wait_until(lambda: threading.active_count() == before)


def test_an_error_of_the_thread_comes_after_what_was_before_it():
    made = ahead(lambda n: 6 // n, iter([3, 2, 0, 1]))
    assert [next(made), next(made)] == [(3, 2), (2, 3)]
    with pytest.raises(ZeroDivisionError):
        next(made)
    assert list(ahead(str, iter([]))) == []


def test_one_window_needs_no_thread(tiny_model, gpu, monkeypatch):
    model = tiny_model()
    list(model.embed("cat"))
    monkeypatch.setattr(threading.Thread, "start", None)  # would fail if it were called
    assert len(list(model.embed("the cat"))) == 1
