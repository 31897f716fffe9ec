"""How near the engine comes to the speed of onnxruntime's matrix product, and where the rest of its time goes.

    pip install onnx
    python benchmarks/roofline.py                       # about a minute

The first table has the speed of a large product, (512, hidden) x (hidden, 4 hidden), in fp32 and in int8, on as many
threads as the engine has, each with runs of its own, as the engine does it; and that of the operations of all products
in a model over the time of embedding all texts (those of embed.py; tokenizing and pooling are in that time). They run
in turn; medians. No engine on onnxruntime can do more than all of it, nor does a product of a smaller shape reach it.

The other tables are onnxruntime's own profile, on one thread, operators added up by what they are for: of the same
texts in the engine's batches, and of single queries of 10 tokens. The profile itself costs some microseconds an
operator, which is much in a query: there, small operators weigh less than it says.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from common import engines, interleaved, machine, texts
from onnx import TensorProto, helper, numpy_helper

from fastrank import store
from fastrank.engine import cpu, precision
from fastrank.engine.batching import collate, plan
from fastrank.engine.options import Device, Options
from fastrank.engine.tokenizer import Tokenizer
from fastrank.models import registry, tokenization
from fastrank.models.spec import ModelSpec
from fastrank.store.lookup import Lookup

QUERIES, QUERY_WORDS = 200, 8  # of so many words, and two special tokens
ROWS, RUNS = 512, 40  # of a product, and how often a thread does it before the clock is read
MAX_LENGTH, BUDGET = 256, 512  # tokens of a text, as embed.py; of a batch, as the engine
PRECISIONS = {"fp32": "fp32", "int8": "int8", "int8-fast": "int8"}  # and the product that bounds them

# What operators are for. Those that are not here are counted as "shapes, lookups and the rest".
PURPOSES = {
    "products with weights": ("Gemm", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"),
    "attention": ("MultiHeadAttention", "MatMul", "FusedMatMul", "Softmax", "Transpose"),
    "rounding to int8": ("Abs", "ReduceMax", "Max", "QuantizeLinear", "DynamicQuantizeLinear"),
    "LayerNorm": ("LayerNormalization",),
    "GELU": ("Gelu", "FastGelu", "Erf", "Div"),
    "additions and scaling": ("Add", "Mul"),
}
REST = "shapes, lookups and the rest"


def product(kind: str, hidden: int) -> onnxruntime.InferenceSession:
    """A session, of one thread, of one large product with constant weights."""
    wide, random = 4 * hidden, np.random.default_rng(0)
    if kind == "fp32":
        weights = random.normal(size=(hidden, wide)).astype(np.float32)
        constants = [numpy_helper.from_array(weights, "w")]
        node, dtype = helper.make_node("MatMul", ["x", "w"], ["y"]), TensorProto.FLOAT
    else:
        constants = [
            numpy_helper.from_array(random.integers(-127, 128, (hidden, wide)).astype(np.int8), "w"),
            numpy_helper.from_array(np.asarray(np.float32(1)), "scale"),
            numpy_helper.from_array(np.ones(wide, np.float32), "scales"),
            numpy_helper.from_array(np.asarray(np.uint8(128)), "zero"),
        ]
        inputs = ["x", "w", "scale", "scales", "zero"]
        node = helper.make_node("MatMulIntegerToFloat", inputs, ["y"], domain="com.microsoft")
        dtype = TensorProto.UINT8
    graph = helper.make_graph(
        [node],
        "product",
        [helper.make_tensor_value_info("x", dtype, [ROWS, hidden])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [ROWS, wide])],
        constants,
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return onnxruntime.InferenceSession(model.SerializeToString(), _one_thread(), providers=["CPUExecutionProvider"])


def side_by_side(session: onnxruntime.InferenceSession, x: Any, threads: int) -> None:
    """The product, `RUNS` times on each thread."""

    def run(_thread: int) -> None:
        for _ in range(RUNS):
            session.run(None, {"x": x})

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(run, range(threads)))


def operations(lengths: Sequence[int], config: dict[str, Any]) -> int:
    """Of all products in an encoder: with weights, and those of attention."""
    hidden, layers = config["hidden_size"], config["num_hidden_layers"]
    wide = config["intermediate_size"]
    weights = sum(lengths) * (8 * hidden**2 + 4 * hidden * wide)
    return int(layers * (weights + sum(4 * hidden * length**2 for length in lengths)))


def reached(setup: engines.Setup, documents: list[str], work: int, hidden: int, rounds: int) -> dict[str, Any]:
    """Billions of operations a second: of each product, and of each precision of the engine."""
    random = np.random.default_rng(1)
    given = {
        "fp32": random.normal(size=(ROWS, hidden)).astype(np.float32),
        "int8": random.integers(0, 256, (ROWS, hidden)).astype(np.uint8),
    }
    calls: dict[str, Callable[[], Any]] = {
        f"product in {kind}": partial(side_by_side, product(kind, hidden), x, setup.threads)
        for kind, x in given.items()
    }
    for name in PRECISIONS:
        embed = engines.fastrank(setup, name)
        calls[name] = partial(lambda embed: list(embed(documents)), embed)
    for call in calls.values():
        call()  # warms up
    one = 2 * ROWS * hidden * 4 * hidden * RUNS * setup.threads
    seconds = interleaved.seconds(calls, rounds, pause=0.2)
    return {
        name: (one if name.startswith("product") else work) / float(np.median(values)) / 1e9
        for name, values in seconds.items()
    }


def profile(spec: ModelSpec, files: store.ModelFiles, name: str, documents: list[str], most: int) -> dict[str, float]:
    """The share of each purpose in the time of all operators, at most so many texts at a time."""
    how = precision.plan(spec, files, "encoder", Options(cuda=Device.CPU, precision=name), None)
    assert how.model.build is not None  # noqa: S101 - of a checkpoint, it is always built
    options = _one_thread()
    options.enable_profiling = True
    if not how.model.optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    folder = str(how.model.path.resolve().parent)
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
    tokenizer = Tokenizer(tokenization.read(files.folder), MAX_LENGTH)
    tokens = tokenizer.encode(documents)
    batches = plan([len(each.ids) for each in tokens], BUDGET, how.max_batch or most, equal=how.uniform_length)
    with tempfile.TemporaryDirectory() as place:
        options.profile_file_prefix = str(Path(place) / "profile")
        session = onnxruntime.InferenceSession(how.model.build(), options, providers=["CPUExecutionProvider"])
        for positions in batches:
            batch = collate(tokens, positions, tokenizer.pad_id)
            named = {"input_ids": batch.ids, "attention_mask": batch.mask, "token_type_ids": batch.types}
            session.run(None, named)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    purposes = {operator: purpose for purpose, operators in PURPOSES.items() for operator in operators}
    spent: Counter[str] = Counter()
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            spent[purposes.get(event["args"]["op_name"], REST)] += event["dur"]
    return {purpose: spent[purpose] / spent.total() for purpose in (*PURPOSES, REST)}


def table(report: dict[str, Any]) -> str:
    """All tables."""
    speeds = report["speeds"]
    lines = [f"{'':32} {'GOP/s':>8} {'share':>7}"]
    for name, speed in speeds.items():
        bound = speeds.get(f"product in {PRECISIONS.get(name)}")
        lines.append(f"{name:32} {speed:8.0f} {f'{speed / bound:7.0%}' if bound else ''}")
    for of, profiles in report["profile"].items():
        lines += ["", f"{of:32} " + " ".join(f"{name:>10}" for name in profiles)]
        for purpose in (*PURPOSES, REST):
            shares = " ".join(f"{shares[purpose]:10.0%}" for shares in profiles.values())
            lines.append(f"{purpose:32} {shares}")
    return "\n".join(lines)


def _one_thread() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description="The speed that the matrix product allows, and what is reached of it.")
    parser.add_argument("--documents", type=int, default=256, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=cpu.available(), help="default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write everything to this file")
    given = parser.parse_args(arguments)
    about = machine.describe()
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    spec = registry.find(engines.MODEL)
    files = store.locate(spec, Lookup(variant="safetensors"))
    config = json.loads((files.folder / "config.json").read_text(encoding="utf-8"))
    documents = list(islice(texts.generated(files.folder / "tokenizer.json", texts.mixed), given.documents))
    lengths = [len(each.ids) for each in Tokenizer(tokenization.read(files.folder), MAX_LENGTH).encode(documents)]
    setup = engines.Setup(files.folder, given.threads, MAX_LENGTH)
    report: dict[str, Any] = {"machine": about, "model": engines.MODEL, "threads": given.threads}
    report |= {"documents": len(documents), "tokens": sum(lengths), "rounds": given.rounds}
    work = operations(lengths, config)
    report["speeds"] = reached(setup, documents, work, config["hidden_size"], given.rounds)
    narrowed = {name: precision.candidates(spec, Options(precision=name), Lookup()).spec for name in PRECISIONS}
    tokenizer = files.folder / "tokenizer.json"
    queries = list(islice(texts.generated(tokenizer, lambda _dice: QUERY_WORDS, seed=1), QUERIES))
    report["profile"] = {
        of: {name: profile(narrowed[name], files, name, asked, most) for name in PRECISIONS}
        for of, asked, most in (("all texts", documents, len(documents)), ("single queries", queries, 1))
    }
    print(f"{len(documents)} texts, {sum(lengths)} tokens, {given.threads} threads\n\n{table(report)}")
    if given.json:
        given.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
