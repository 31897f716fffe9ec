"""The head of ColBERT (Khattab and Zaharia 2020, arXiv:2004.12832): hidden states to short vectors of length 1.

Its linear layer lies in the checkpoint itself (`linear.weight`, as ColBERT saves it), or in folders of its own that
`modules.json` lists (Dense of PyLate and of sentence-transformers).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fastrank.errors import ModelLoadError
from fastrank.graph import blocks, onnx_proto
from fastrank.graph.safetensors import read_header
from fastrank.models.config import Config

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastrank.graph.builder import Graph
    from fastrank.graph.encoded import Encoded

LINEAR: Final = "linear"
_EPSILON: Final = 1e-12  # torch.nn.functional.normalize

_ACTIVATIONS: Final[dict[str, Callable[[Graph, str], str]]] = {
    "torch.nn.modules.activation.GELU": blocks.gelu,
    "torch.nn.modules.activation.ReLU": blocks.relu,
    "torch.nn.modules.activation.Tanh": lambda graph, x: graph.op("Tanh", x),
    "torch.nn.modules.linear.Identity": lambda _graph, x: x,
}
"""The values of a Dense module's `activation_function` that are supported."""


def token_vectors(graph: Graph, config: Config, encoded: Encoded) -> None:
    """Write the output `token_vectors`, float32 [batch, sequence, dim]: projected, each of length 1.

    Raises:
        ModelLoadError: There is no linear layer, or a file or tensor of one is not as expected.
    """
    x, size = encoded.all_tokens()[0], encoded.sizes.hidden
    layers = [] if graph.has(f"{LINEAR}.weight") else dense_folders(config.path.parent)
    if graph.has(f"{LINEAR}.weight"):
        dim = graph.rows(f"{LINEAR}.weight")
        x, size = blocks.linear(graph, x, LINEAR, size, dim, bias=graph.has(f"{LINEAR}.bias"), float32=True), dim
    elif not layers:
        raise ModelLoadError(
            f"{config.path.parent}: neither has model.safetensors a tensor {LINEAR}.weight nor modules.json a Dense, "
            "one of which makes ColBERT's token vectors"
        )
    for folder in layers:
        x, size = _dense(graph, x, folder, size)
    if layers:
        x = graph.to_float32(x)
    length = graph.op("ReduceL2", x, axes=[-1], keepdims=1)
    unit = graph.op("Div", x, graph.op("Max", length, graph.scalar(_EPSILON, float32=True)))
    vectors = graph.op("Reshape", unit, blocks.text_shape(graph, encoded.input_ids, size))
    graph.output("token_vectors", vectors, onnx_proto.FLOAT, ["batch", "sequence", size])


def dense_folders(folder: Path) -> list[Path]:
    """The folders of the Dense modules that `modules.json` lists, in order; none if there is no such file.

    Raises:
        ModelLoadError: The file is damaged, or a path leads out of the folder.
    """
    path = folder / "modules.json"
    if not path.is_file():
        return []
    try:
        rows: Any = json.loads(path.read_bytes())
        places = [folder / row["path"] for row in rows if str(row["type"]).endswith(".Dense")]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise ModelLoadError(f"{path}: not a list of modules, each with type and path: {error}") from error
    for place in places:
        if folder.resolve() not in place.resolve().parents:
            raise ModelLoadError(f"{path}: the path {place} leads out of the folder")
    return places


def _dense(graph: Graph, x: str, folder: Path, size: int) -> tuple[str, int]:
    """One Dense module: [rows, size] to [rows, its size], which is returned too."""
    config = Config.read(folder / "config.json")
    dim = config.integer("out_features")
    if config.integer("in_features") != size:
        raise config.error("in_features", f"what comes before has {size} features")
    activation = _ACTIVATIONS[config.choice("activation_function", _ACTIVATIONS)]
    path = folder / "model.safetensors"
    tensors = read_header(path)

    def product(name: str, *, bias: bool) -> str:
        terms = [graph.copied(path, tensors, f"{name}.weight", dim, size)]
        if bias:
            terms.append(graph.copied(path, tensors, f"{name}.bias", dim))
        return graph.op("Gemm", x, *terms, transB=1)

    projected = activation(graph, product("linear", bias=config.flag("bias", default=True)))
    if config.flag("use_residual", default=False):
        projected = graph.op("Add", projected, x if size == dim else product("residual", bias=False))
    return projected, dim
