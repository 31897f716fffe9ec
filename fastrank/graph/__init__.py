"""From a checkpoint that nobody exported to an ONNX model: `config.json` and `model.safetensors` are enough.

The model holds no weights. Each initializer is external data: an offset and a length inside `model.safetensors`,
which onnxruntime maps into memory. Nothing is converted and nothing is written:

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    session = onnxruntime.InferenceSession(build(folder), options)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastrank.graph import bert, proto, roberta
from fastrank.graph.builder import Graph
from fastrank.graph.config import Config
from fastrank.graph.safetensors import read_header

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

__all__ = ["SUPPORTED", "build"]

SUPPORTED: Final[Mapping[str, Callable[[Graph, Config], str]]] = {
    "bert": bert.encoder,
    "camembert": roberta.encoder,
    "roberta": roberta.encoder,
    "xlm-roberta": roberta.encoder,
}
"""By `model_type`: the function that writes the encoder's inputs and nodes, and names its last hidden states."""


def build(folder: Path) -> bytes:
    """Write the ONNX model of the checkpoint in `folder`.

    Inputs, int64 [batch, sequence]: `input_ids`, `attention_mask` (1 is text, 0 is padding) and, for BERT,
    `token_type_ids`. Output, float32 [batch, sequence, hidden]: `last_hidden_state`, equal to transformers' to about
    1e-5. Weights may be F32, or F16 and BF16, which are cast to F32 when the session is made.

    Args:
        folder: Holds `config.json` and `model.safetensors`, as transformers' `save_pretrained` writes them.

    Returns:
        A serialized ModelProto (opset 17, no custom operators) whose weights lie in `model.safetensors`.

    Raises:
        ModelLoadError: A file is missing, damaged or of an unsupported kind. The message names the file and the
            field or tensor.
    """
    config = Config(folder / "config.json")
    write_encoder = SUPPORTED[config.choice("model_type", SUPPORTED)]
    weights = folder / "model.safetensors"
    if weights.is_symlink():  # as in huggingface_hub's cache; onnxruntime follows no link out of a folder
        weights = weights.resolve()
    graph = Graph(weights, read_header(weights))
    hidden = write_encoder(graph, config)
    graph.output("last_hidden_state", hidden, proto.FLOAT, ["batch", "sequence", config.integer("hidden_size")])
    return graph.to_bytes()
