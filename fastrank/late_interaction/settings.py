"""How a late interaction model is used: arguments over registry over folder, resolved into one complete record."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from fastrank.models import colbert
from fastrank.models.spec import LateInteractionTask, ModelSpec


class TextSettings(NamedTuple):
    """What is done to the tokens of queries, or of documents.

    Attributes:
        max_length: tokens a text may have, prefix token and special ones included; None: as the tokenizer's files say.
        capped: lower `max_length` to the positions the model has, instead of raising an error.
        prefix_token: a token or its id that is put into each text; None: none.
        prefix_position: how many tokens stand before it.
        expand_to: shorter texts are expanded to this many tokens (query expansion); 0: they are not.
        expansion_token: with this one.
        attend_to_expansion_tokens: whether those are attended to.
    """

    max_length: int | None
    capped: bool
    prefix_token: int | str | None
    prefix_position: int
    expand_to: int = 0
    expansion_token: str = ""
    attend_to_expansion_tokens: bool = False


class LateInteractionSettings(NamedTuple):
    """Complete settings of a late interaction model.

    Attributes:
        dim: the size of a token's embedding.
        queries: what is done to their tokens.
        documents: what is done to theirs.
        skiplist_texts: texts whose first token leaves no embedding in documents.
        skiplist_tokens: tokens that leave none.
        normalize_queries: whether embeddings of queries are L2-normalized after the graph.
        normalize_documents: the same for documents.
        graph_head: what to build on a checkpoint.
        output: the output of an ONNX file to use; None: its first.
    """

    dim: int
    queries: TextSettings
    documents: TextSettings
    skiplist_texts: tuple[str, ...]
    skiplist_tokens: tuple[str, ...]
    normalize_queries: bool
    normalize_documents: bool
    graph_head: str
    output: str | None


def resolve(
    spec: ModelSpec, task: LateInteractionTask, max_length: int | None, folder: Path, *, given: bool
) -> LateInteractionSettings:
    """What arguments and registry say, completed by the model's folder.

    Args:
        spec: the model.
        task: the registry's entry; without `dim` the folder says everything.
        max_length: tokens a document may have, as the caller wants it.
        folder: the model's.
        given: whether the folder is the caller's own.

    Raises:
        ModelLoadError: the folder's files are damaged, or do not say how token embeddings are made.
    """
    if not task.dim:
        task = colbert.read(spec.name, folder)
    elif given:
        colbert.warn_if_different(spec, task, folder)
    return LateInteractionSettings(
        dim=task.dim,
        queries=TextSettings(
            max_length=task.query_max_length or spec.max_length,
            capped=True,
            prefix_token=task.query_prefix_token,
            prefix_position=task.prefix_position,
            expand_to=task.query_length or 0,
            expansion_token=task.mask_token,
            attend_to_expansion_tokens=task.attend_to_expansion_tokens,
        ),
        documents=TextSettings(
            max_length=max_length or task.document_max_length or spec.max_length,
            capped=max_length is None,
            prefix_token=task.document_prefix_token,
            prefix_position=task.prefix_position,
        ),
        skiplist_texts=task.skiplist,
        skiplist_tokens=task.skiplist_words,
        normalize_queries=task.normalize == "both",
        normalize_documents=task.normalize != "none",
        graph_head="colbert" if task.projection else "encoder",
        output=task.output,
    )
