"""How a learned sparse model is used: arguments over registry over folder, resolved into one complete record."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from fastrank.models import sparse_encoder
from fastrank.models.sparse_encoder import SparseEncoder
from fastrank.models.spec import Prefixes, SparseTask
from fastrank.models.token_heads import TokenHead

WEIGHTED = "token-weights"
_NO_WEIGHT = ("<s>", "</s>", "<pad>", "<unk>")  # XLM-RoBERTa's
# What to build on a checkpoint.
_GRAPH_HEADS = {"splade": "masked-lm", "bm42": "attention", "minicoil": "encoder", WEIGHTED: "encoder"}


class SparseSettings(NamedTuple):
    """Complete settings of a learned sparse model.

    Attributes:
        kind: "splade", "bm42", "minicoil" or "token-weights".
        activation: SPLADE: from logits to weights, "log1p" or "log1p-log1p".
        skip_special_tokens: SPLADE: whether [CLS] and the like get no weight.
        query_weights: SPLADE: a JSON file of token -> weight, for models whose queries run no model; None: none.
        language: BM42: of stemmer and stop words.
        alpha: BM42: the exponent of attention.
        bm25: MiniCOIL: k, b and avg_len, where they were given.
        graph_head: what to build on a checkpoint.
        output: the output of an ONNX file to use; None: its first.
        pooling: SPLADE: over the tokens of a text: "max" or "sum".
        prefixes: put before queries, and before other texts.
        max_active_dims: SPLADE: how many of the largest weights are kept; None: all.
        in_registry: whether the registry says everything, so that the folder's tokenizer is used as it is.
        home: where the files of the tokenizer and of the model are: the model's folder, or one in it.
        table: SPLADE: whether each token has a weight, in model.safetensors in `home`, and no model is run.
        routed: whether queries and passages go ways of their own.
        head: the layer that weighs tokens, of the kind "token-weights".
        without_weight: tokens that have no weight, of the same.
    """

    kind: str
    activation: str
    skip_special_tokens: bool
    query_weights: str | None
    language: str
    alpha: float
    bm25: Mapping[str, float]
    graph_head: str
    output: str | None
    pooling: str
    prefixes: Prefixes
    max_active_dims: int | None
    in_registry: bool
    home: Path
    table: bool
    routed: bool
    head: TokenHead | None = None
    without_weight: tuple[str, ...] = ()


def resolve(task: SparseTask, options: Mapping[str, float], folder: Path, route: str | None = None) -> SparseSettings:
    """What arguments and registry say, completed by the model's folder.

    Args:
        task: the registry's entry; `activation` None: as the folder says, else "log1p".
        options: the caller's arguments.
        folder: the model's.
        route: "query" or "document" for a way of their own that some folders have; None: that of `embed`.

    Raises:
        ModelLoadError: the folder's files are damaged, or its modules are not those of a sparse encoder.
    """
    in_registry = task.activation is not None
    head = _token_head(task, folder, in_registry=in_registry)
    kind = WEIGHTED if head else task.kind
    of_folder = SparseEncoder() if in_registry else _of_folder(folder, route, with_head=head is not None)
    return SparseSettings(
        kind=kind,
        activation=task.activation or of_folder.activation,
        skip_special_tokens=task.skip_special_tokens,
        query_weights=task.query_weights,
        language=task.language or "english",
        alpha=options.get("alpha", task.alpha),
        bm25=options if task.kind == "minicoil" else {},
        graph_head=_GRAPH_HEADS[kind],
        output=task.output,
        pooling=of_folder.pooling,
        prefixes=of_folder.prefixes,
        max_active_dims=of_folder.max_active_dims,
        in_registry=in_registry,
        home=of_folder.home or folder,
        table=of_folder.table,
        routed=of_folder.routed,
        head=head,
        without_weight=_without_weight(folder, in_registry=in_registry) if head else (),
    )


def _token_head(task: SparseTask, folder: Path, *, in_registry: bool) -> TokenHead | None:
    """The layer that weighs tokens; a folder that says it is a SPLADE model has none."""
    if in_registry and task.kind != WEIGHTED:
        return None
    from fastrank.models import token_heads

    if in_registry:
        return token_heads.sparse(folder, task.weights)
    return None if sparse_encoder.is_saved(folder) else token_heads.sparse(folder)


def _of_folder(folder: Path, route: str | None, *, with_head: bool) -> SparseEncoder:
    if not with_head:
        return sparse_encoder.read(folder, route)
    from fastrank.models import encoder_config

    return SparseEncoder(prefixes=encoder_config.encoder(folder, "SentenceTransformer").prefixes)


def _without_weight(folder: Path, *, in_registry: bool) -> tuple[str, ...]:
    """The beginning and the end of a text, padding and the unknown token, as FlagEmbedding has it."""
    if in_registry:
        return _NO_WEIGHT
    from fastrank.models.config import Config
    from fastrank.models.tokenization import special_token

    config = Config.read_if_present(folder / "tokenizer_config.json")
    return tuple(
        special_token(config, f"{name}_token", default)
        for name, default in zip(("cls", "eos", "pad", "unk"), _NO_WEIGHT, strict=True)
    )
