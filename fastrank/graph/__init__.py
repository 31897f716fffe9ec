"""From a checkpoint that nobody exported to an ONNX model: `config.json` and `model.safetensors` are enough.

The model holds no weights. Each initializer is external data: an offset and a length inside `model.safetensors` (or a
shard of it), which onnxruntime maps into memory. Nothing is converted and nothing is written:

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    session = onnxruntime.InferenceSession(build(folder), options)
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from fastrank.errors import ModelLoadError
from fastrank.graph import checkpoint, onnx_proto, quantized_matmul
from fastrank.graph.builder import Graph, Rounding
from fastrank.graph.quantized_matmul import TRIAL_ANSWER
from fastrank.graph.safetensors import Tensor, read_header
from fastrank.models.config import Config

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "RANGES",
    "SUPPORTED",
    "TRIAL_ANSWER",
    "Recipe",
    "Rounding",
    "Tensor",
    "build",
    "recipe",
    "trial",
]

# Functions by the names of their modules, which are imported when they are needed: a model needs one or two of them,
# and a new process should not wait for the rest.
_ENCODERS: Final = {
    "bert": "architectures.bert.encoder",
    "camembert": "architectures.roberta.encoder",
    "distilbert": "architectures.distilbert.encoder",
    "electra": "architectures.electra.encoder",
    "jina_bert": "architectures.jina_bert.encoder",
    "model2vec": "architectures.static.encoder",
    "modernbert": "architectures.modernbert.encoder",
    "mpnet": "architectures.mpnet.encoder",
    "nomic_bert": "architectures.nomic_bert.encoder",
    "roberta": "architectures.roberta.encoder",
    "xlm-roberta": "architectures.roberta.encoder",
}
"""By `model_type`: writes the encoder's inputs and nodes, `(Graph, Config) -> Encoded`."""

_HEADS: Final = {
    **{(model_type, "encoder"): "heads.hidden_states" for model_type in _ENCODERS},
    **{(model_type, "attention"): "heads.attention" for model_type in _ENCODERS if model_type != "model2vec"},
    **{(model_type, "colbert"): "projection.token_vectors" for model_type in _ENCODERS if model_type != "model2vec"},
    ("bert", "masked-lm"): "architectures.bert.masked_lm",
    ("camembert", "masked-lm"): "architectures.roberta.masked_lm",
    ("distilbert", "masked-lm"): "architectures.distilbert.masked_lm",
    ("electra", "masked-lm"): "architectures.electra.masked_lm",
    ("jina_bert", "masked-lm"): "architectures.bert.masked_lm",
    ("modernbert", "masked-lm"): "architectures.modernbert.masked_lm",
    ("mpnet", "masked-lm"): "architectures.roberta.masked_lm",
    ("nomic_bert", "masked-lm"): "architectures.nomic_bert.masked_lm",
    ("roberta", "masked-lm"): "architectures.roberta.masked_lm",
    ("xlm-roberta", "masked-lm"): "architectures.roberta.masked_lm",
    ("bert", "sequence-classification"): "architectures.bert.sequence_classification",
    ("camembert", "sequence-classification"): "architectures.roberta.sequence_classification",
    ("distilbert", "sequence-classification"): "architectures.distilbert.sequence_classification",
    ("electra", "sequence-classification"): "architectures.electra.sequence_classification",
    ("jina_bert", "sequence-classification"): "architectures.bert.sequence_classification",
    ("modernbert", "sequence-classification"): "architectures.modernbert.sequence_classification",
    ("mpnet", "sequence-classification"): "architectures.roberta.sequence_classification",
    ("nomic_bert", "sequence-classification"): "architectures.bert.sequence_classification",
    ("roberta", "sequence-classification"): "architectures.roberta.sequence_classification",
    ("xlm-roberta", "sequence-classification"): "architectures.roberta.sequence_classification",
}
"""By `model_type` and head: writes the nodes on top of the encoder, and the outputs, `(Graph, Config, Encoded)`."""

SUPPORTED: Final[Mapping[str, tuple[str, ...]]] = {
    model_type: tuple(head for owner, head in _HEADS if owner == model_type) for model_type in _ENCODERS
}
"""By `model_type`: the heads that `build` can write."""


_BY_ROW: Final = Rounding()

_MASKED: Final = ("attention", "colbert")  # heads: one shows probabilities, the other has tokens that are not seen

RANGES: Final = "ranges"
"""What `Recipe.graph` calls its output."""


class Recipe(NamedTuple):
    """What there is to quantize in a checkpoint, for one head.

    Attributes:
        tensors: All that the head's graph needs, by name.
        sites: Names of weights [out, in]; those of one site multiply the same value.
        smooth: Those of the sites whose value leaves a LayerNorm, where some channels are large by habit.
        tables: Names of tensors of which rows are looked up.
        graph: A model whose output `ranges`, float32 [sum of in], holds the largest magnitude of every channel of the
            values of the sites in `smooth`, one after the other.
    """

    tensors: Mapping[str, Tensor]
    sites: tuple[tuple[str, ...], ...]
    smooth: tuple[tuple[str, ...], ...]
    tables: tuple[str, ...]
    graph: bytes


def build(
    folder: Path,
    head: str = "encoder",
    *,
    weights: Path | None = None,
    rounding: Rounding = _BY_ROW,
    half: bool = False,
    unpadded: bool = False,
) -> bytes:
    """Write the ONNX model of the checkpoint in `folder`.

    Inputs, int64 [batch, sequence]: `input_ids`, `attention_mask` (1 is text, 0 is padding) and, where the
    architecture has them, `token_type_ids`. Outputs, float32, equal to transformers' to about 1e-5:

        head                      output              shape
        encoder                   last_hidden_state   [batch, sequence, hidden]
        attention                 last_hidden_state   [batch, sequence, hidden]
                                  attention           [batch, heads, sequence, sequence], of the last layer
        colbert                   token_vectors       [batch, sequence, dim], of length 1
        masked-lm                 logits              [batch, sequence, vocabulary]
        sequence-classification   logits              [batch, labels]

    Weights may be F32, F16 or BF16; those that are not what the graph computes in are cast when the session is made.
    In float16 are weights, and what leaves a product or a norm. Scores of attention and their mask, mean and variance,
    labels' logits, the length of token vectors and all outputs are float32.

    Args:
        folder: Holds `config.json` and `model.safetensors`, or its index and shards, as transformers'
            `save_pretrained` writes them.
        head: What to write on top of the encoder; `SUPPORTED` says which an architecture has.
        weights: Another safetensors file to take the weights from, with some of them in int8 (see `graph.int8`).
        rounding: Of activations, where weights are int8.
        half: Compute in float16, for a GPU: outputs are near those to about 3e-3; a CPU casts it back.
        unpadded: All texts of a batch have the same length; attention is quicker then, and `attention_mask` is read by
            the heads "attention" and "colbert" only.

    Returns:
        A serialized ModelProto (opset 17; onnxruntime's own operators only where weights are int8 or nothing is padded)
        whose weights lie in the checkpoint.

    Raises:
        ModelLoadError: A file is missing, damaged or of an unsupported kind, or the checkpoint has no such head. The
            message names the file and the field or tensor.
    """
    return _written(folder, head, weights, rounding, half=half, unpadded=unpadded).to_bytes()


def recipe(folder: Path, head: str = "encoder") -> Recipe:
    """What there is to quantize in the checkpoint in `folder`.

    Raises:
        ModelLoadError: As `build`, or there is nothing to quantize.
    """
    graph = _written(folder, head, None, _BY_ROW)
    if not graph.factors:
        raise ModelLoadError(f"{folder}: a static model multiplies by no weights, so int8 is not for it; leave it out")
    normed = [x for x in graph.factors if x.startswith("LayerNormalization")]
    if normed:
        largest = [graph.op("ReduceMax", graph.op("Abs", x), axes=[0], keepdims=0) for x in normed]
        graph.output(RANGES, graph.op("Concat", *largest, axis=0), onnx_proto.FLOAT, ["channels"])
    return Recipe(
        graph.used,
        tuple(map(tuple, graph.factors.values())),
        tuple(tuple(graph.factors[x]) for x in normed),
        tuple(graph.tables),
        graph.to_bytes(),
    )


def trial() -> bytes:
    """A model that finds out whether 8-bit products are added exactly: see `int8.trial`."""
    graph = Graph(Path(), {})
    quantized_matmul.trial(graph)
    return graph.to_bytes()


def _written(
    folder: Path, head: str, weights: Path | None, rounding: Rounding, *, half: bool = False, unpadded: bool = False
) -> Graph:
    if weights is None:
        stored = checkpoint.read(folder)
    else:
        stored = checkpoint.Checkpoint(weights, read_header(weights.resolve()))
    config = _config(folder, stored.tensors)
    model_type = _model_type(config)
    if head not in SUPPORTED[model_type]:
        supported = ", ".join(map(repr, SUPPORTED[model_type]))
        raise ModelLoadError(
            f"{config.path}: no head {head!r} for the model type {model_type!r}; supported: {supported}"
        )
    graph = Graph(stored.path, stored.tensors, rounding, half=half, unpadded=unpadded and head not in _MASKED)
    graph.hint = f"; the head {head!r} needs it, and the checkpoint was saved as {config.text('architectures')}"
    encoded = _function(_ENCODERS[model_type])(graph, config)
    _function(_HEADS[model_type, head])(graph, config, encoded)
    return graph


def _function(name: str) -> Any:
    """One that writes a part of a graph."""
    module, _, function = name.rpartition(".")
    return getattr(importlib.import_module(f"{__name__}.{module}"), function)


def _config(folder: Path, tensors: Mapping[str, Tensor]) -> Config:
    """The checkpoint's; sentence-transformers writes none for its static embeddings."""
    path = folder / "config.json"
    if not path.exists() and _function("architectures.static.SENTENCE_TRANSFORMERS") in tensors:
        return Config(path, {"model_type": "model2vec"})
    return Config.read(path)


def _model_type(config: Config) -> str:
    """The checkpoint's key in the tables."""
    model_type: str = config.choice("model_type", _ENCODERS)
    is_jina = (
        model_type == "bert"
        and config.choice("position_embedding_type", ["absolute", "alibi"], default="absolute") == "alibi"
    )
    return "jina_bert" if is_jina else model_type
