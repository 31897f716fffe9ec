"""How a late interaction model is used: arguments over registry over folder, resolved into one complete record."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from fastrank.models import colbert, encoder_config, multi_vector, token_heads
from fastrank.models.modules import Step
from fastrank.models.multi_vector import MultiVector, Skiplist, TokenPooling
from fastrank.models.sentence_transformers import first_module
from fastrank.models.spec import LateInteractionTask, ModelSpec
from fastrank.models.token_heads import TokenHead


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
        prompt: put before each text.
    """

    max_length: int | None
    capped: bool
    prefix_token: int | str | None
    prefix_position: int
    expand_to: int = 0
    expansion_token: str = ""
    attend_to_expansion_tokens: bool = False
    prompt: str = ""


class TokenModules(NamedTuple):
    """What the modules of a MultiVectorEncoder do with the states of tokens, in this order.

    Attributes:
        steps: Dense and Normalize.
        counted: whether the expansion tokens of queries leave embeddings even if nothing attends to them.
        skiplist: tokens that leave none.
        pooling: fewer embeddings; None: all.
        after_pooling: Dense and Normalize.
    """

    steps: tuple[Step, ...]
    counted: bool
    skiplist: Skiplist
    pooling: TokenPooling | None
    after_pooling: tuple[Step, ...]


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
        in_registry: whether the registry says everything, so that the folder's tokenizer is used as it is.
        home: where the files of the tokenizer and of the transformer are: the model's folder, or one in it.
        modules: of a MultiVectorEncoder, what is done with the states of tokens; None: what stands above.
        head: the layer that makes embeddings of the states of all tokens but the first; None: the graph has them.
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
    in_registry: bool
    home: Path
    modules: TokenModules | None = None
    head: TokenHead | None = None


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
    prompt, in_registry, head = "", bool(task.dim), None
    if task.linear or not in_registry:
        head = token_heads.tokens(folder, task.linear)
    if head is not None and not in_registry:
        task = LateInteractionTask(dim=head.outputs, projection=False)
        prompt = encoder_config.encoder(folder, "SentenceTransformer").prefixes.embed
    elif not in_registry:
        if multi_vector.is_multi_vector(folder):
            return _of_modules(multi_vector.read(folder), spec.max_length, max_length, first_module(folder))
        task = colbert.read(spec.name, folder)
        prompt = colbert.prompt(folder)
    elif given:
        colbert.warn_if_different(spec, task, folder)
    return LateInteractionSettings(
        dim=task.dim,
        queries=TextSettings(
            max_length=(max_length if head else None) or task.query_max_length or spec.max_length,
            capped=max_length is None or head is None,
            prefix_token=task.query_prefix_token,
            prefix_position=task.prefix_position,
            expand_to=task.query_length or 0,
            expansion_token=task.mask_token,
            attend_to_expansion_tokens=task.attend_to_expansion_tokens,
            prompt=prompt,
        ),
        documents=TextSettings(
            max_length=max_length or task.document_max_length or spec.max_length,
            capped=max_length is None,
            prefix_token=task.document_prefix_token,
            prefix_position=task.prefix_position,
            prompt=prompt,
        ),
        skiplist_texts=task.skiplist,
        skiplist_tokens=task.skiplist_words,
        normalize_queries=task.normalize == "both",
        normalize_documents=task.normalize != "none",
        graph_head=_graph_head(task, head),
        output=task.output,
        in_registry=in_registry,
        home=folder if in_registry else first_module(folder),
        head=head,
    )


def _graph_head(task: LateInteractionTask, head: TokenHead | None) -> str:
    if head is not None:
        return "encoder"
    return "colbert" if task.projection else "token-states"


def _of_modules(model: MultiVector, limit: int | None, max_length: int | None, home: Path) -> LateInteractionSettings:
    """The settings of a MultiVectorEncoder; `limit` is the model's, `max_length` the caller's."""
    expansion = model.expansion
    return LateInteractionSettings(
        dim=model.dim,
        queries=TextSettings(
            max_length=model.query_length or limit,
            capped=True,
            prefix_token=None,
            prefix_position=0,
            expand_to=expansion.length if expansion else 0,
            expansion_token=expansion.token if expansion else "",
            attend_to_expansion_tokens=bool(expansion and expansion.attend),
            prompt=model.query_prompt,
        ),
        documents=TextSettings(
            max_length=max_length or model.document_length or limit,
            capped=max_length is None,
            prefix_token=None,
            prefix_position=0,
            prompt=model.document_prompt,
        ),
        skiplist_texts=(),
        skiplist_tokens=model.skiplist.tokens,
        normalize_queries=False,
        normalize_documents=False,
        graph_head="token-states",
        output=None,
        in_registry=False,
        home=home,
        modules=TokenModules(model.steps, model.counted, model.skiplist, model.pooling, model.after_pooling),
    )
