"""The engines that embed.py, gpu.py, cold_start.py, memory.py and precision.py compare; each alone in a process too.

Nothing heavy is imported before an engine is opened, so that the process of one engine has nothing of another, and so
that little but the engine counts in a cold start. Peers are installed by those who want to compare:

    pip install onnx fastembed==0.9.1 sentence-transformers    # sentence-transformers[onnx] adds its ONNX backend
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
DISTRIBUTIONS = ("tokenizers", "fastembed", "sentence-transformers", "transformers", "torch", "optimum")
MEGABYTE = 1 << 20

Embed: TypeAlias = Callable[[Iterable[str]], Iterable[Any]]  # from texts to vectors of length 1


class Setup(NamedTuple):
    """What all engines are told: a folder of `folders.prepare`, threads, tokens a text may have, "cpu" or "cuda"."""

    folder: Path
    threads: int
    max_length: int
    device: str = "cpu"


class NotHereError(Exception):
    """The engine cannot run here; the message says why."""


class Engine(NamedTuple):
    """An engine at one setting.

    Attributes:
        open: gives the function that embeds. ImportError: not installed. FileNotFoundError: its files were not made.
            NotHereError: it cannot run on the device.
        precision: of its arithmetic.
        tuned: whether a batch size was chosen for it, which says nothing to a single query.
    """

    open: Callable[[Setup], Embed]
    precision: str
    tuned: bool = False


def fastrank(setup: Setup, precision: str, parallel: int | None = None, *, arena: bool = True) -> Embed:
    """Ours, as its defaults are unless told otherwise."""
    ours: Any = importlib.import_module("fastrank").TextEmbedding(
        MODEL,
        threads=setup.threads,
        cuda=setup.device,
        variant="safetensors",
        max_length=setup.max_length,
        precision=precision,
        enable_cpu_mem_arena=arena,
    )
    return partial(ours.embed, parallel=parallel)


def fastembed(setup: Setup, graph: str, **options: int) -> Embed:
    """FastEmbed with a graph of the same weights."""
    path = setup.folder / graph
    if not path.is_dir():
        raise FileNotFoundError(path)
    peer = importlib.import_module("fastembed")
    on_gpu = setup.device == "cuda"
    with warnings.catch_warnings():
        if on_gpu:
            warnings.simplefilter("error", RuntimeWarning)  # what it gives before it runs on the CPU instead
        try:
            model = peer.TextEmbedding(
                MODEL, cache_dir=str(path), threads=setup.threads, cuda=on_gpu, specific_model_path=str(path)
            )
        except (RuntimeWarning, ValueError) as error:
            if not on_gpu:
                raise
            raise NotHereError(str(error)) from None
    return partial(model.embed, **options)


def sentence_transformers(setup: Setup, dtype: str = "float32", backend: str = "torch", **options: int) -> Embed:
    """Its model on torch, or its ONNX backend."""
    peer, torch = importlib.import_module("sentence_transformers"), importlib.import_module("torch")
    torch.set_num_threads(setup.threads)
    settings: dict[str, Any] = {"model_kwargs": {"dtype": getattr(torch, dtype)}}
    if backend == "onnx":
        importlib.import_module("optimum.onnxruntime")
        session = importlib.import_module("onnxruntime").SessionOptions()
        session.intra_op_num_threads = setup.threads
        settings = {
            "model_kwargs": {
                "provider": "CPUExecutionProvider",
                "file_name": "onnx/model.onnx",
                "session_options": session,
            }
        }
    model = peer.SentenceTransformer(
        str(setup.folder), device=setup.device, backend=backend, local_files_only=True, **settings
    )
    model.max_seq_length = setup.max_length
    return lambda texts: model.encode(list(texts), show_progress_bar=False, **options)


BASELINE, OURS = "FastEmbed", "fastrank fp32"
ENGINES: dict[str, Engine] = {
    OURS: Engine(partial(fastrank, precision="fp32"), "fp32"),
    "fastrank int8": Engine(partial(fastrank, precision="int8"), "int8"),
    "fastrank int8-fast": Engine(partial(fastrank, precision="int8-fast"), "int8"),
    "fastrank fp32, no arena": Engine(partial(fastrank, precision="fp32", arena=False), "fp32", tuned=True),
    "fastrank fp32, parallel=0": Engine(partial(fastrank, precision="fp32", parallel=0), "fp32", tuned=True),
    BASELINE: Engine(partial(fastembed, graph="onnx"), "fp32"),
    "FastEmbed, batch 1": Engine(partial(fastembed, graph="onnx", batch_size=1), "fp32", tuned=True),
    "FastEmbed, our int8 graph": Engine(partial(fastembed, graph="int8"), "int8"),
    "FastEmbed, our int8 graph, batch 1": Engine(partial(fastembed, graph="int8", batch_size=1), "int8", tuned=True),
    "sentence-transformers": Engine(sentence_transformers, "fp32"),
    "sentence-transformers, ONNX": Engine(partial(sentence_transformers, backend="onnx"), "fp32"),
    "sentence-transformers, bf16": Engine(partial(sentence_transformers, dtype="bfloat16", batch_size=8), "bf16"),
}
ON_CPU = tuple(ENGINES)
ENGINES |= {
    "fastrank fp16": Engine(partial(fastrank, precision="fp16"), "fp16"),
    "FastEmbed, tf32": Engine(partial(fastembed, graph="onnx"), "tf32"),  # onnxruntime's default for fp32 on a GPU
    "sentence-transformers, fp16": Engine(partial(sentence_transformers, dtype="float16"), "fp16"),
    "sentence-transformers, fp16, batch 256": Engine(
        partial(sentence_transformers, dtype="float16", batch_size=256), "fp16", tuned=True
    ),
}
ON_GPU = (OURS, "fastrank fp16", "FastEmbed, tf32", "sentence-transformers", *tuple(ENGINES)[-2:])
# What an engine cannot do without, and what it imports: "fastrank" alone would import nothing.
IMPORTS = {
    "import numpy, onnxruntime, tokenizers": ("numpy", "onnxruntime", "tokenizers"),
    "import fastrank": ("fastrank.dense.heads.text_embedding", "numpy", "onnxruntime", "tokenizers"),
    "import fastembed": ("fastembed",),
    "import sentence_transformers": ("sentence_transformers",),
}


def opened(names: Iterable[str], setup: Setup) -> dict[str, Embed]:
    """The engines that can run here; says which cannot, and why."""
    found = {}
    for name in names:
        try:
            found[name] = ENGINES[name].open(setup)
        except ImportError as error:
            print(f"{name}: not compared, as {error.name} is not installed")
        except FileNotFoundError:
            print(f"{name}: not compared, as its graph needs: pip install onnx")
        except NotHereError as error:
            print(f"{name}: not compared: {error}")
    return found


# -- alone in a process ------------------------------------------------------------------------------------------------


class Mark(NamedTuple):
    """Where a process is: after so many documents (0: the first vector is there).

    Attributes:
        documents: embedded since the first vector.
        seconds: since the process was started.
        resident: megabytes in memory now; 0 where the system does not tell.
        peak: the most there were, in megabytes.
    """

    documents: int
    seconds: float
    resident: float
    peak: float


def surroundings() -> dict[str, str]:
    """The environment of a process that is timed: offline, with byte-code, as packages are installed with theirs."""
    told = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    return {**told, "HF_HUB_OFFLINE": "1"}


def alone(name: str, setup: Setup, texts: Path | None = None, marks: Sequence[int] = ()) -> list[Mark]:
    """An engine (or what IMPORTS names) in a new process: its first vector, then the lines of a file, one a document.

    Raises:
        NotHereError: the engine, or something it needs, is not installed.
    """
    settings = [str(setup.folder), str(setup.threads), str(setup.max_length), str(texts or ""), *map(str, marks)]
    found: list[Mark] = []
    command = [sys.executable, __file__, name, *settings]
    start = time.perf_counter()
    with subprocess.Popen(  # noqa: S603 - this file
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=surroundings()
    ) as process:
        assert process.stdout is not None  # noqa: S101 - for the type checker
        assert process.stderr is not None  # noqa: S101
        for line in process.stdout:
            documents, resident, peak = json.loads(line)
            found.append(Mark(documents, time.perf_counter() - start, resident, peak))
        said = process.stderr.read()
    if process.returncode:
        raise NotHereError(f"{name}: {(said.strip().splitlines() or ['it failed'])[-1]}")
    return found


def _lines(path: Path, marks: Iterable[int]) -> Iterator[str]:
    """So many lines as the last mark says, one at a time."""
    with path.open(encoding="utf-8") as file:
        yield from (line for _, line in zip(range(max(marks)), file, strict=False))


def _memory() -> tuple[float, float]:
    """Megabytes of this process now, and the most it has had."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        if sys.platform == "win32":
            return 0.0, 0.0
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return 0.0, peak / (MEGABYTE if sys.platform == "darwin" else 1024)
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return int(fields["VmRSS"].split()[0]) / 1024, int(fields["VmHWM"].split()[0]) / 1024


def _report(documents: int) -> None:
    print(json.dumps([documents, *_memory()]), flush=True)


def main() -> int:
    """The process of `alone`."""
    name, folder, threads, max_length, texts, *given = sys.argv[1:]
    for module in IMPORTS.get(name, ()):
        importlib.import_module(module)
    if name in IMPORTS:
        _report(0)
        return 0
    embed = ENGINES[name].open(Setup(Path(folder), int(threads), int(max_length)))
    list(embed(["hello world"]))
    _report(0)
    marks = [int(each) for each in given]
    if texts:
        for number, _ in zip(count(1), embed(_lines(Path(texts), marks)), strict=False):
            if number in marks:
                _report(number)
    return 0


if __name__ == "__main__":
    sys.exit(main())
