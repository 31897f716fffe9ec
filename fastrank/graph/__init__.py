"""Build ONNX models from checkpoints: `config.json` and `model.safetensors` are enough.

In: a checkpoint's folder and the name of a head. Out: a serialized ONNX model.

The model holds no weights. Each initializer is external data: an offset and a length inside `model.safetensors` (or a
shard of it), which onnxruntime maps into memory. Nothing is converted and nothing is written to disk:

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    session = onnxruntime.InferenceSession(build(folder), options)

A new architecture is one module in `architectures`, named after its `model_type`.
"""

from __future__ import annotations

import functools
import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from fastrank.errors import ModelLoadError
from fastrank.graph import architectures, checkpoint, onnx_proto, quantized_matmul
from fastrank.graph.builder import ActivationQuantization, Graph
from fastrank.graph.fields import IGNORED_FIELDS, OFF_FIELDS
from fastrank.graph.quantized_matmul import TRIAL_ANSWER
from fastrank.graph.safetensors import Tensor, read_header
from fastrank.models.config import Config, is_model2vec, read_object

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

__all__ = [
    "OUTPUT",
    "RANGES",
    "TRIAL_ANSWER",
    "ActivationQuantization",
    "Recipe",
    "Tensor",
    "build",
    "in_int4",
    "model_type",
    "model_types",
    "recipe",
    "supported_heads",
    "trial",
]

OUTPUT: Final[Mapping[str, str]] = {
    "encoder": "last_hidden_state",
    "token-states": "last_hidden_state",
    "layer-states": "layer_states",
    "attention": "attention",
    "colbert": "token_vectors",
    "masked-lm": "logits",
    "token-weights": "token_weights",
    "sequence-classification": "logits",
    "logit-score": "logits",
}
"""The heads that `build` writes, and the output of each that holds its result."""

RANGES: Final = "ranges"
"""The output of `Recipe.graph`."""

_ALIASES: Final = {
    "camembert": "roberta",
    "deberta-v2": "deberta_v2",
    "mt5": "t5",
    "new": "gte",
    "qwen2": "qwen3",
    "xlm-roberta": "roberta",
}
"""The module in `architectures` of each `model_type` that none is named after."""

_SHARED_HEADS: Final = {
    "encoder": "heads.hidden_states",
    "token-states": "heads.hidden_states",
    "layer-states": "heads.layer_states",
    "attention": "heads.attention",
    "colbert": "projection.token_vectors",
}
"""Heads that need no weights of the architecture; the others are functions of its module."""

_HIDDEN_COUNT: Final = ("colbert", "token-states")  # hide some tokens of texts without padding
_MASKED_HEADS: Final = ("attention", *_HIDDEN_COUNT)  # the first returns probabilities

_FEW_POSITIONS: Final = 514  # of RoBERTa: 512 tokens
_PER_TOKEN: Final = ActivationQuantization()


class Recipe(NamedTuple):
    """What quantizing a checkpoint needs to know, for one head.

    Attributes:
        tensors: Every tensor the head's graph uses, by name.
        matmul_groups: Names of weights [out, in]; the weights of one group multiply the same activation.
        smoothed_groups: The groups whose activation leaves a norm, where a few channels are always large.
        embedding_tables: Names of tensors whose rows are looked up.
        graph: A model whose output `ranges`, float32 [sum of in], holds the largest magnitude of every channel of the
            activations of `smoothed_groups`, one group after the other.
    """

    tensors: Mapping[str, Tensor]
    matmul_groups: tuple[tuple[str, ...], ...]
    smoothed_groups: tuple[tuple[str, ...], ...]
    embedding_tables: tuple[str, ...]
    graph: bytes


def model_types() -> tuple[str, ...]:
    """Every `model_type` that `build` supports, sorted. No architecture is imported."""
    return tuple(sorted({*_modules(), *_ALIASES}))


def model_type(folder: Path) -> str:
    """The `model_type` of the checkpoint in `folder`.

    Raises:
        ModelLoadError: There is no checkpoint, or no architecture for it.
    """
    return _model_type(_config(folder, checkpoint.read(folder).tensors))


def in_int4(model_type: str) -> bool:
    """Whether 4-bit weights were measured for a `model_type` and pay: in decoders, most of whose memory they are."""
    return getattr(_architecture(model_type), "IN_INT4", False)


def supported_heads(model_type: str) -> tuple[str, ...]:
    """The heads that `build` can write for a `model_type`."""
    architecture = _architecture(model_type)
    return tuple(head for head in OUTPUT if _has_head(architecture, head))


def build(
    folder: Path,
    head: str = "encoder",
    *,
    weights: Path | None = None,
    activations: ActivationQuantization = _PER_TOKEN,
    half: bool = False,
    unpadded: bool = False,
    plain: bool = False,
    score_tokens: tuple[int, int | None] | None = None,
) -> bytes:
    """Write the ONNX model of the checkpoint in `folder`.

    Inputs, int64 [batch, sequence]: `input_ids`, `attention_mask` (1 is text, 0 is padding) and, where the
    architecture has them, `token_type_ids`. Padding is on the right. Outputs, float32, equal to transformers' to about
    1e-5:

        head                      output              shape
        encoder                   last_hidden_state   [batch, sequence, hidden]
        token-states              last_hidden_state   [batch, sequence, hidden], of tokens that the mask hides too
        layer-states              layer_states        [batch, sequence, layers + 1, hidden], before and after each layer
        attention                 last_hidden_state   [batch, sequence, hidden]
                                  attention           [batch, heads, sequence, sequence], of the last layer
        colbert                   token_vectors       [batch, sequence, dim], L2-normalized
        masked-lm                 logits              [batch, sequence, vocabulary]
        sequence-classification   logits              [batch, labels]
        logit-score               logits              [batch, 1]
        token-weights             token_weights       [batch, sequence]

    Weights may be F32, F16 or BF16; they are cast to the compute dtype when the session is created.
    In float16 are weights, and the outputs of matrix products and norms. Attention scores and their mask, mean and
    variance, classifier logits, the norm of token vectors and all outputs stay float32.

    Args:
        folder: Holds `config.json` and `model.safetensors`, or its index and shards, as transformers'
            `save_pretrained` writes them.
        head: What to write on top of the encoder; `supported_heads` lists the heads of an architecture.
        weights: Another safetensors file to take the weights from, some of them int8 (see `quantized_matmul`).
        activations: How activations are quantized, where weights are int8.
        half: Compute in float16, for a GPU: outputs agree to about 3e-3; a CPU casts back to float32.
        unpadded: All texts of a batch have the same length; attention is faster then, and `attention_mask` is read by
            the heads "attention" and "colbert" only.
        plain: Compute attention by ONNX's own operators, all scores at once, as any device can; else, and never in
            float16, a block of scores at a time, in memory that grows with the length of a text and not with its
            square. The head "attention", which returns probabilities, is always plain.
        score_tokens: For the head "logit-score", which needs it: the ids of the tokens that mean yes and no. The score
            is the logit of "yes" minus that of "no"; with None for "no" it is the former alone.

    Returns:
        A serialized ModelProto (opset 17; where it is not `plain` or weights are int8, with onnxruntime's contrib
        operators) whose weights lie in the checkpoint.

    Raises:
        ModelLoadError: A file is missing, damaged or of an unsupported kind, or the checkpoint has no such head. The
            message names the file and the field or tensor.
    """
    graph = _graph(
        folder, head, weights, activations, half=half, unpadded=unpadded, plain=plain, score_tokens=score_tokens
    )
    return graph.to_bytes()


def recipe(folder: Path, head: str = "encoder") -> Recipe:
    """What quantizing the checkpoint in `folder` to int8 needs to know.

    Raises:
        ModelLoadError: As `build`, or the model has no matrix products to quantize.
    """
    graph = _graph(folder, head, None, _PER_TOKEN, score_tokens=(0, None))  # any: rows are looked up, not multiplied by
    if not graph.matmul_weights:
        raise ModelLoadError(f"{folder}: a static model multiplies by no weights, so int8 is not for it; leave it out")
    normed = [x for x in graph.matmul_weights if x in graph.normed]
    if normed:
        largest = [graph.op("ReduceMax", graph.op("Abs", x), axes=[0], keepdims=0) for x in normed]
        graph.output(RANGES, graph.op("Concat", *largest, axis=0), onnx_proto.FLOAT, ["channels"])
    return Recipe(
        graph.used,
        tuple(map(tuple, graph.matmul_weights.values())),
        tuple(tuple(graph.matmul_weights[x]) for x in normed),
        tuple(graph.embedding_tables),
        graph.to_bytes(),
    )


def trial() -> bytes:
    """A model that finds out whether the CPU adds 8-bit products exactly: see `quantized_matmul.trial`."""
    graph = Graph(Path(), {})
    quantized_matmul.trial(graph)
    return graph.to_bytes()


def _graph(
    folder: Path,
    head: str,
    weights: Path | None,
    activations: ActivationQuantization,
    *,
    half: bool = False,
    unpadded: bool = False,
    plain: bool = False,
    score_tokens: tuple[int, int | None] | None = None,
) -> Graph:
    if weights is None:
        stored = checkpoint.read(folder)
    else:
        stored = checkpoint.Checkpoint(weights, read_header(weights.resolve()))
    config = _config(folder, stored.tensors)
    kind = _model_type(config)
    architecture = _architecture(kind)
    if not _has_head(architecture, head):
        supported = ", ".join(map(repr, supported_heads(kind)))
        raise ModelLoadError(f"{config.path}: no head {head!r} for the model type {kind!r}; supported: {supported}")
    graph = Graph(
        stored.path,
        stored.tensors,
        activations,
        half=half,
        unpadded=unpadded and head not in _MASKED_HEADS,
        hidden_count=head in _HIDDEN_COUNT,
        in_blocks=not (plain or half or head == "attention" or _has_few_positions(stored)),
    )
    graph.hint = f"; the head {head!r} needs it, and the checkpoint was saved as {config.text('architectures')}"
    graph.score_tokens = score_tokens
    encoded = architecture.encoder(graph, config)
    _head(architecture, head)(graph, config, encoded)
    if hasattr(architecture, "IGNORED_FIELDS"):
        config.refuse_unread(IGNORED_FIELDS | architecture.IGNORED_FIELDS, OFF_FIELDS)
    return graph


def _has_few_positions(stored: checkpoint.Checkpoint) -> bool:
    """Whether learned positions end where computing attention in blocks begins to pay; it slows short texts."""
    tables = (tensor.shape for name, tensor in stored.tensors.items() if name.endswith("position_embeddings.weight"))
    return any(shape[:1] <= (_FEW_POSITIONS,) for shape in tables)


@functools.cache
def _modules() -> frozenset[str]:
    try:
        names = os.listdir(architectures.__path__[0])  # noqa: PTH208 - of a package; pkgutil takes 1 ms to import
        return frozenset(name.partition(".")[0] for name in names if name.endswith((".py", ".pyc"))) - {"__init__"}
    except OSError:  # in a zip file
        import pkgutil

        return frozenset(module.name for module in pkgutil.iter_modules(architectures.__path__))


def _architecture(model_type: str) -> ModuleType:
    """Its module: a process imports the one or two that it needs, so that it starts fast."""
    return importlib.import_module(f"{architectures.__name__}.{_ALIASES.get(model_type, model_type)}")


def _has_head(architecture: ModuleType, head: str) -> bool:
    if head in _SHARED_HEADS:
        return head not in getattr(architecture, "WITHOUT_HEADS", ())
    return head in OUTPUT and hasattr(architecture, head.replace("-", "_"))


def _head(architecture: ModuleType, head: str) -> Any:
    """The function `(Graph, Config, Encoded) -> None` that writes a head and the outputs of the graph."""
    if head not in _SHARED_HEADS:
        return getattr(architecture, head.replace("-", "_"))
    module, _, function = _SHARED_HEADS[head].partition(".")
    return getattr(importlib.import_module(f"{__name__}.{module}"), function)


def _config(folder: Path, tensors: Mapping[str, Tensor]) -> Config:
    """The checkpoint's configuration; sentence-transformers writes none for static embeddings."""
    path = folder / "config.json"
    if not path.exists() and _architecture("model2vec").SENTENCE_TRANSFORMERS in tensors:
        return Config(path, {"model_type": "model2vec"})
    values = read_object(path)
    return Config(path, {**values, "model_type": "model2vec"} if is_model2vec(values) else values)


def _model_type(config: Config) -> str:
    """The checkpoint's `model_type`; JinaBERT's configurations call themselves "bert"."""
    model_type: str = config.choice("model_type", model_types())
    is_jina = (
        model_type == "bert"
        and config.choice("position_embedding_type", ["absolute", "alibi"], default="absolute") == "alibi"
    )
    return "jina_bert" if is_jina else model_type
