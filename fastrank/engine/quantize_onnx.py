"""From an ONNX graph that others exported to one with int8 products: once per model, with numpy.

For models of which there is no checkpoint. onnxruntime normalises the graph; its products by weights and its tables of
words are then quantized as those of checkpoints are. The result is accepted only if it is near the original on the
calibration texts.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fastrank.engine import quantize
from fastrank.engine.batching import Batch, collate
from fastrank.engine.options import Options
from fastrank.engine.pooling import Floats
from fastrank.engine.quantize import Nearness, Piece
from fastrank.engine.session import Model, Session, Use, normalise
from fastrank.engine.tokenizer import Tokenizer
from fastrank.errors import ModelLoadError
from fastrank.graph import ActivationQuantization, onnx_int8
from fastrank.graph.onnx_int8 import Exported, Product
from fastrank.graph.safetensors import read_bytes, read_float32

LEAST: float = 0.99  # the mean cosine to the original that is asked for
_VERSION = 1
_FEW = 16  # numbers of a text's result, such as scores, whose differences between texts count


def file_name(model: str, form: str) -> str:
    """The file name of the int8 form of an ONNX graph: `model` is its path in the model's folder."""
    return f"onnx-{form}-{re.sub('[^A-Za-z0-9]+', '-', model)}-{_VERSION}.safetensors"


def quantize_onnx(path: Path, use: Use, tokenizer: Tokenizer, target: Path, threads: int | None, form: str) -> None:
    """Write the int8 form of the ONNX graph `path` to the file `target`: form is `quantize.INT8` or `UINT8`.

    Raises:
        ModelLoadError: the graph cannot be quantized, or too much is lost by it; the message says why.
        OSError: `target` cannot be written.
    """
    graph, data = (target.with_name(f"{target.name}.{end}") for end in ("onnx", "data"))
    tokens = tokenizer.encode(quantize.texts())
    batches = [collate(tokens, [position], tokenizer.pad_id) for position in range(len(tokens))]
    options = Options(threads, cuda=False)
    try:
        try:
            normalise(path, graph, data.name)
        except ModelLoadError:  # older versions of onnxruntime cannot write graphs inside a node
            onnx_int8.refuse(path)
            raise
        found = onnx_int8.exported(graph, data, path)
        smoothing = _smoothing(found, use, batches, options)
        header = quantize.write(_quantized(found, smoothing, form), target, [*found.tensors, onnx_int8.GRAPH])
    finally:
        graph.unlink(missing_ok=True)
        data.unlink(missing_ok=True)
    near = _measured(path, target, use, batches, options)
    if not near.mean > LEAST:
        raise ModelLoadError(
            f"{path} in int8 is too far from itself: the mean cosine of its results on calibration texts is "
            f"{near.mean:.4f}, and {LEAST} is asked for. Leave `precision` out to run it as it is"
        )
    header.write(target, near)
    quantize.return_memory()


def _smoothing(found: Exported, use: Use, batches: list[Batch], options: Options) -> dict[str, Floats]:
    """Factors of each activation in `found.smoothed`."""
    if not found.smoothed:
        return {}
    session = Session(Model(found.path, functools.partial(onnx_int8.with_ranges, found)), options, use.extra_inputs)
    ranges = functools.reduce(np.maximum, (session.run(batch, onnx_int8.RANGES) for batch in batches))
    sizes = [products[0].size_in for products in found.smoothed.values()]
    factors = {}
    for (x, products), of_values in zip(found.smoothed.items(), np.split(ranges, np.cumsum(sizes)[:-1]), strict=True):
        largest = np.max([np.abs(_weight(found, product)).max(axis=0) for product in products], axis=0)
        factors[x] = quantize.smoothing_factors(largest, of_values)
    return factors


def _weight(found: Exported, product: Product) -> Floats:
    """(out, in)."""
    weight = read_float32(product.weight, found.tensors[product.weight])
    return weight if product.transposed else np.ascontiguousarray(weight.T)


def _quantized(found: Exported, smoothing: dict[str, Floats], form: str) -> Iterator[Piece]:
    """The tensors of the new file."""
    skeleton = onnx_int8.skeleton(found)
    yield onnx_int8.GRAPH, "U8", np.frombuffer(skeleton, np.uint8)
    for name in sorted(found.kept):
        tensor = found.tensors[name]
        values = np.array(read_bytes(name, tensor)).ravel().view(_NUMPY[tensor.dtype])
        yield name, tensor.dtype, values.reshape(tensor.shape)
    for name in sorted({*found.tables.values()} - found.kept):
        rows, scale = quantize.rounded_table(name, found.tensors[name])
        yield f"{name}.rows", "I8", rows
        yield f"{name}.rows.scale", "F32", scale[:, None]
    for product in {each.weight: each for each in found.products.values()}.values():
        if product.weight in found.kept:
            continue
        weight = _weight(found, product)
        if product.x in smoothing:
            weight = weight / smoothing[product.x]
            yield f"{product.weight}.smooth", "F32", smoothing[product.x]
        rows, scale = quantize.rounded(weight)
        unsigned = form == quantize.UINT8
        yield (product.weight, "U8", quantize.shifted(rows.T)) if unsigned else (product.weight, "I8", rows.T)
        yield f"{product.weight}.scale", "F32", scale


_NUMPY = {  # by safetensors' name of a dtype
    "BF16": "<u2",
    "BOOL": "u1",
    "F16": "<f2",
    "F32": "<f4",
    "F64": "<f8",
    "I8": "i1",
    "I32": "<i4",
    "I64": "<i8",
    "U8": "u1",
}


def _measured(path: Path, made: Path, use: Use, batches: list[Batch], options: Options) -> Nearness:
    """How near the results of the calibration texts are: those of tokens, or of texts where there is one each."""
    results = []
    builds = (Model(path), Model(made, functools.partial(onnx_int8.build, made, ActivationQuantization())))
    for model in builds:  # one after the other, so that only one of them is in memory
        session = Session(model, options, use.extra_inputs)
        results.append([session.run(batch, use.output) for batch in batches])
        del session
    if results[0][0].ndim == 2 and results[0][0].shape[1] < _FEW:
        scores = [np.concatenate(each) for each in results]
        cosines = quantize.cosine(*((each - each.mean(axis=0)).ravel()[None] for each in scores))
    else:
        cosines = np.concatenate([quantize.cosine(*pair).ravel() for pair in zip(*results, strict=True)])
    return Nearness(float(cosines.mean()), float(cosines.min()))
