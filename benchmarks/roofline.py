"""What onnxruntime's own fp32 matrix product reaches here: no fp32 engine on onnxruntime can be faster than that.

    pip install onnx
    python benchmarks/roofline.py --tokens 13900 --layers 6 --hidden 384

Prints the speed of (512, hidden) x (hidden, 4 hidden), and the least seconds that so many tokens need in an encoder of
that size: 24 * hidden ** 2 operations a token and layer, attention's own products left out.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence

import machine
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from fastrank import processors

ROWS, ROUNDS = 512, 200


def gigaflops(hidden: int, threads: int) -> float:
    """Billions of operations a second of one large product, median of many."""
    wide = 4 * hidden
    weights = numpy_helper.from_array(np.random.default_rng(0).normal(size=(hidden, wide)).astype(np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [ROWS, hidden])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [ROWS, wide])],
        [weights],
    )
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).normal(size=(ROWS, hidden)).astype(np.float32)
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        session.run(None, {"x": x})
        seconds.append(time.perf_counter() - start)
    return 2 * ROWS * hidden * wide / statistics.median(seconds) / 1e9


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description="The speed that the matrix product allows.")
    parser.add_argument("--hidden", type=int, default=384, help="default: %(default)s")
    parser.add_argument("--layers", type=int, default=6, help="default: %(default)s")
    parser.add_argument("--tokens", type=int, default=10_000, help="default: %(default)s")
    given = parser.parse_args(arguments)
    print(", ".join(f"{key} {value}" for key, value in machine.describe().items()))
    speed = gigaflops(given.hidden, processors.available())
    work = 24 * given.hidden**2 * given.layers * given.tokens / 1e9
    print(f"{speed:.0f} GFLOP/s; {given.tokens} tokens are {work:.0f} GFLOP: {work / speed:.2f} s at least")
    return 0


if __name__ == "__main__":
    sys.exit(main())
