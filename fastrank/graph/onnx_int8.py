"""Int8 matrix products in ONNX models that others exported: which products there are, and the model with them in int8.

The model has been normalised by onnxruntime (see `engine.session.normalise`): constants are folded, so every weight is
an initializer, and weights of a kilobyte and more are external data. Products are those of `quantized_matmul`; tables
of words are looked up in int8.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from fastrank.errors import ModelLoadError
from fastrank.graph import onnx_proto, quantized_matmul
from fastrank.graph.builder import ActivationQuantization, Graph
from fastrank.graph.onnx_reading import DTYPES, Initializer, Node, OnnxModel, read
from fastrank.graph.safetensors import Tensor, read_bytes, read_header

if TYPE_CHECKING:
    from pathlib import Path

RANGES: Final = "fastrank.ranges"
GRAPH: Final = "fastrank.graph"  # the tensor, in a made file, of the model without its weights
_FEWEST: Final = 16  # outputs of a product: of fewer, such as scores, every digit counts
_TABLE: Final = 1000  # rows
_PER_TOKEN: Final = ActivationQuantization()
_THROUGH: Final = ("Cast", "Identity", "Reshape")
_NORMS: Final = (
    "LayerNormalization",
    "RMSNormalization",
    "SimplifiedLayerNormalization",
    "SkipLayerNormalization",
    "SkipSimplifiedLayerNormalization",
)
_QUANTIZED: Final = (
    *("ConvInteger", "DequantizeLinear", "DynamicQuantizeLinear", "DynamicQuantizeMatMul", "GatherBlockQuantized"),
    *("MatMulBnb4", "MatMulInteger", "MatMulIntegerToFloat", "MatMulNBits", "QAttention", "QEmbedLayerNormalization"),
    *("QGemm", "QLinearMatMul", "QuantizeLinear"),
)
_PACKED: Final = ("Attention", "DecoderMaskedSelfAttention", "LongformerAttention", "PackedAttention")  # contrib's


class Product(NamedTuple):
    """A product by a weight.

    Attributes:
        x: The activation.
        weight: The initializer.
        transposed: Whether it is [out, in]; else [in, out].
        size_in: Input features.
        size_out: Output features.
    """

    x: str
    weight: str
    transposed: bool
    size_in: int
    size_out: int


class Exported(NamedTuple):
    """A normalised model, and what can be quantized in it.

    Attributes:
        path: The model.
        model: What is in it.
        tensors: Weights that are external data, by name.
        products: By the name of the node's output.
        smoothed: Activations of products that leave a norm, each with its products.
        tables: Initializers whose rows are looked up, by the name of the node's output.
        kept: Names of `tensors` that are needed as they are.
    """

    path: Path
    model: OnnxModel
    tensors: dict[str, Tensor]
    products: dict[str, Product]
    smoothed: dict[str, list[Product]]
    tables: dict[str, str]
    kept: set[str]


def exported(path: Path, data: Path, original: Path) -> Exported:
    """The parts of a normalised model that can be quantized.

    Args:
        path: The model.
        data: Its external data.
        original: The model that it was made of, for messages.

    Raises:
        ModelLoadError: There is nothing, or it is of a kind that must not be changed; the message says what to do.
    """
    model = read(path.read_bytes(), original)
    _check(model, original)
    tensors = {
        name: Tensor(DTYPES[each.dtype], each.shape, each.offset, each.length, data)
        for name, each in model.initializers.items()
        if each.offset is not None and each.dtype in DTYPES
    }
    products, tables = {}, {}
    kept: set[str] = set()
    for node in model.nodes:
        if found := _product(node, tensors):
            products[node.outputs[0]] = found
            kept.update(name for name in node.inputs[2:] if name in tensors)
        elif _is_lookup(node, tensors):
            tables[node.outputs[0]] = node.inputs[0]
        else:
            kept.update(name for name in node.inputs if name in tensors)
    shared = _of_several(products)
    products = {output: each for output, each in products.items() if each.weight not in shared | kept}
    kept |= shared
    if not products:
        kinds = sorted({tensor.dtype for tensor in tensors.values()} & {"F16", "BF16", "F64"})
        have = f"its weights are {', '.join(kinds)}" if kinds else "it multiplies by no weights of float32"
        raise ModelLoadError(f"{original} cannot be quantized: {have}. {_AS_IT_IS}")
    makers = {name: node for node in model.nodes for name in node.outputs}
    smoothed: dict[str, list[Product]] = {}
    for each in products.values():
        if _is_normed(each.x, makers, model.initializers):
            smoothed.setdefault(each.x, []).append(each)
    return Exported(path, model, tensors, products, smoothed, tables, kept)


def with_ranges(of: Exported) -> bytes:
    """The model with one more output, `RANGES`, float32: the largest magnitude of each channel of `smoothed`."""
    graph = _graph(of.path, of.model, {})
    for each in of.model.initializers.values():
        graph.add_initializer(each.name, each.raw)
    for node in of.model.nodes:
        graph.add_node(node.raw)
    largest = []
    for x, products in of.smoothed.items():
        rows = graph.op("Reshape", x, graph.integers(-1, products[0].size_in))
        largest.append(graph.reduce_max(graph.op("Abs", rows), 0))
    graph.output(RANGES, graph.op("Concat", *largest, axis=0), onnx_proto.FLOAT, ["channels"])
    return graph.to_bytes()


def skeleton(of: Exported) -> bytes:
    """The model without the weights that go into a safetensors file: what `build` completes."""
    graph = _graph(of.path, of.model, {})
    for each in of.model.initializers.values():
        if each.name not in of.tensors:
            graph.add_initializer(each.name, each.raw)
    for node in of.model.nodes:
        graph.add_node(node.raw)
    return graph.to_bytes()


def build(made: Path, activations: ActivationQuantization) -> bytes:
    """The model in int8: that of a file which `engine.quantize_onnx` made.

    Raises:
        ModelLoadError: The file is damaged.
    """
    stored = read_header(made)
    if GRAPH not in stored:
        raise ModelLoadError(f"{made} has no graph: remove it, so that it is made again")
    model = read(bytes(read_bytes(GRAPH, stored[GRAPH]).ravel()), made)
    graph = _graph(made, model, stored, activations)
    for each in model.initializers.values():
        graph.add_initializer(each.name, each.raw)
    for node in model.nodes:
        weight = node.inputs[1] if node.kind in ("Gemm", "MatMul") and len(node.inputs) > 1 else ""
        if weight and graph.is_int8(weight):
            _write_product(graph, node, weight)
        elif node.kind == "Gather" and f"{node.inputs[0]}.rows" in stored:
            _write_lookup(graph, node)
        else:
            for name in node.inputs:
                if name in stored:
                    graph.stored(name)
            graph.add_node(node.raw)
    return graph.to_bytes()


_AS_IT_IS: Final = "Leave `precision` out to run it as it is"


def refuse(path: Path) -> None:
    """Name what keeps a model as it is from being quantized.

    Raises:
        ModelLoadError: It is of a kind that must not be changed.
    """
    _check(read(path.read_bytes(), path), path)


def _check(model: OnnxModel, path: Path) -> None:
    kinds = {node.kind for node in model.nodes}
    packed = {node.kind for node in model.nodes if node.domain == onnx_proto.ONNXRUNTIME} & set(_PACKED)
    reason = ""
    if found := sorted(kinds & set(_QUANTIZED)):
        reason = f"it is quantized already ({', '.join(found)})"
    elif nested := sorted({node.kind for node in model.nodes if node.has_graph}):
        reason = f"it has graphs inside a node ({', '.join(nested)})"
    elif model.has_functions:
        reason = "it has functions of its own"
    elif packed:
        reason = (
            f"its attention is packed ({', '.join(sorted(packed))}), as onnxruntime's optimizer for transformers does: "
            "use the graph before that, or the checkpoint it was exported from"
        )
    if reason:
        raise ModelLoadError(f"{path} cannot be quantized: {reason}. {_AS_IT_IS}")


def _product(node: Node, tensors: dict[str, Tensor]) -> Product | None:
    if node.domain or node.kind not in ("Gemm", "MatMul") or len(node.inputs) < 2:
        return None
    tensor = tensors.get(node.inputs[1])
    if tensor is None or tensor.dtype != "F32" or len(tensor.shape) != 2 or node.inputs[0] in tensors:
        return None
    numbers = node.numbers
    if (
        numbers.get("transA", 0)
        or numbers.get("alpha", 1) != 1
        or (len(node.inputs) > 2 and numbers.get("beta", 1) != 1)
    ):
        return None
    transposed = bool(numbers.get("transB", 0))
    size_in, size_out = reversed(tensor.shape) if transposed else tensor.shape
    if size_out < _FEWEST:
        return None
    return Product(node.inputs[0], node.inputs[1], transposed, size_in, size_out)


def _of_several(products: dict[str, Product]) -> set[str]:
    """Weights that multiply several activations: each would need its own smoothing."""
    of: dict[str, set[str]] = {}
    for each in products.values():
        of.setdefault(each.weight, set()).add(each.x)
    return {weight for weight, activations in of.items() if len(activations) > 1}


def _is_lookup(node: Node, tensors: dict[str, Tensor]) -> bool:
    if node.kind != "Gather" or node.domain or node.numbers.get("axis", 0):
        return False
    tensor = tensors.get(node.inputs[0])
    return tensor is not None and tensor.dtype == "F32" and len(tensor.shape) == 2 and tensor.shape[0] >= _TABLE


def _is_normed(x: str, makers: dict[str, Node], initializers: dict[str, Initializer]) -> bool:
    """Whether a value leaves a norm, or the end of one that is written out: `normalized * weight + bias`."""

    def by_vector(node: Node) -> str:
        """The other factor or summand, where one is a vector of weights; else empty."""
        for one, other in (node.inputs, node.inputs[::-1]):
            if other in initializers and len(initializers[other].shape) == 1 and initializers[other].shape[0] > 1:
                return one
        return ""

    node = makers.get(x)
    while node is not None and node.kind in _THROUGH:
        node = makers.get(node.inputs[0])
    if node is None or node.kind in _NORMS:
        return node is not None
    if node.kind == "Add":
        node = makers.get(by_vector(node))
    if node is None or node.kind != "Mul":
        return False
    before = makers.get(by_vector(node))
    while before is not None and before.kind in _THROUGH:
        before = makers.get(before.inputs[0])
    if before is None or before.kind not in ("Div", "Mul"):
        return False
    roots = [makers.get(name) for name in before.inputs]
    return any(root is not None and root.kind in ("Reciprocal", "Sqrt", "Rsqrt", "Pow", "Div") for root in roots)


def _graph(
    path: Path,
    model: OnnxModel,
    stored: dict[str, Tensor],
    activations: ActivationQuantization = _PER_TOKEN,
) -> Graph:
    """The beginning of a graph of the model's operators, inputs and outputs."""
    graph = Graph(path, stored, activations, scope="fastrank.", domains=_used(model))
    graph.take_interface(model.inputs, model.outputs)
    return graph


def _used(model: OnnxModel) -> dict[str, int]:
    used = {"", *(node.domain for node in model.nodes)}
    return {domain: version for domain, version in model.domains.items() if domain in used}


def _write_product(graph: Graph, node: Node, weight: str) -> None:
    size_in, size_out = graph.shape(weight, 2)
    x, output = node.inputs[0], node.outputs[0]
    rows = x if node.kind == "Gemm" else graph.once(f"rows {x}", lambda: _as_rows(graph, x, size_in))
    y = quantized_matmul.product(graph, rows, weight, [], size_in, size_out)
    if node.kind == "MatMul":
        leading = graph.once(f"leading {x}", lambda: _leading_sizes(graph, x))
        shape = graph.once(
            f"shape {x} {size_out}", lambda: graph.op("Concat", leading, graph.integers(size_out), axis=0)
        )
        graph.add_node(onnx_proto.node("Reshape", [y, shape], [output], {}))
        return
    bias = next(iter(node.inputs[2:]), "")
    if bias:
        graph.add_node(onnx_proto.node("Add", [y, graph.stored(bias)], [output], {}))
    else:
        graph.add_node(onnx_proto.node("Identity", [y], [output], {}))


def _as_rows(graph: Graph, x: str, size: int) -> str:
    return graph.op("Reshape", x, graph.integers(-1, size))


def _leading_sizes(graph: Graph, x: str) -> str:
    return graph.op("Slice", graph.op("Shape", x), graph.integers(0), graph.integers(-1))


def _write_lookup(graph: Graph, node: Node) -> None:
    table, indices = node.inputs
    rows = graph.op("Gather", graph.stored(f"{table}.rows"), indices)
    scales = graph.op("Gather", graph.stored(f"{table}.rows.scale"), indices)  # [rows, 1]
    rows = graph.op("Cast", rows, to=onnx_proto.FLOAT)
    graph.add_node(onnx_proto.node("Mul", [rows, scales], [node.outputs[0]], {}))
