"""Where clients of hosted APIs keep an address that no argument changes."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from fastrank import environment

_RERANK, _EMBEDDINGS = "/v1/rerank", "/v1/embeddings"
_CONSTANTS = (  # module, name, path on the server
    ("lancedb.rerankers.jinaai", "API_URL", _RERANK),
    ("lancedb.embeddings.jinaai", "API_URL", _EMBEDDINGS),
    ("pymilvus.model.reranker.jinaai", "API_URL", _RERANK),
    ("pymilvus.model.dense.jinaai", "API_URL", _EMBEDDINGS),
    ("milvus_model.reranker.jinaai", "API_URL", _RERANK),
    ("milvus_model.dense.jinaai", "API_URL", _EMBEDDINGS),
    ("langchain_community.document_compressors.jina_rerank", "JINA_API_URL", _RERANK),
    ("langchain_community.embeddings.jina", "JINA_API_URL", _EMBEDDINGS),
)
_DEFAULTS = (  # module, class, what its constructor's `base_url` is by default
    ("llama_index.embeddings.jinaai.base", "_JinaAPICaller", "/v1"),
    ("llama_index.postprocessor.jinaai_rerank.base", "JinaRerank", "/v1"),
    ("haystack_integrations.components.rankers.jina.ranker", "JinaRanker", _RERANK),
)
_CHROMA = "chromadb.utils.embedding_functions.jina_embedding_function"


def point_at(url: str) -> None:
    """Do what `fastrank.integrations.redirect` says."""
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"url must begin with http:// or https://, got {url!r}")
    server = url.rstrip("/").removesuffix("/v1")
    environment.point_clients(cohere=server, openai=f"{server}/v1")
    _point_cohere(server)
    _point_voyage(f"{server}/v1")
    for name, constant, path in _CONSTANTS:
        if (module := _module(name)) is not None:
            setattr(module, constant, server + path)
    for name, of_class, path in _DEFAULTS:
        if (module := _module(name)) is not None:
            _set_default(getattr(module, of_class).__init__, "base_url", server + path)
    if (chroma := _module(_CHROMA)) is not None:
        # Its constructor sets a constant of its own, which is to be ignored.
        address = property(lambda _self: server + _EMBEDDINGS, lambda _self, _value: None)
        chroma.JinaEmbeddingFunction._api_url = address  # noqa: SLF001 - there is no other place


def _point_cohere(server: str) -> None:
    """`CO_API_URL` is a default argument, read when cohere is imported."""
    cohere = sys.modules.get("cohere")
    if cohere is not None:
        for name in ("Client", "AsyncClient", "ClientV2", "AsyncClientV2"):
            for base in getattr(cohere, name).__mro__:
                _set_default(vars(base).get("__init__"), "base_url", server)


def _point_voyage(address: str) -> None:
    """Clients without `base_url` ask a function; counting tokens would fetch a tokenizer from the hub."""

    def words(_client: Any, texts: Sequence[str], model: str | None = None) -> list[list[str]]:  # noqa: ARG001
        return [text.split() for text in texts]

    if (base := _module("voyageai._base")) is not None:
        base.get_default_base_url = lambda _key: address  # type: ignore[attr-defined]  # it has one
        base._BaseClient.tokenize = words  # noqa: SLF001 - there is no other place


def _module(name: str) -> ModuleType | None:
    """The module, if it is installed and can be imported."""
    with contextlib.suppress(Exception):  # whatever a host's own imports raise: it cannot be used then
        if find_spec(name.partition(".")[0]) is not None:
            return importlib.import_module(name)
    return None


def _set_default(function: Callable[..., Any] | None, argument: str, value: str) -> None:
    """Change what an argument is by default, if the function has it."""
    if not inspect.isfunction(function):
        return
    by_name = function.__kwdefaults__ or {}
    if argument in by_name:
        function.__kwdefaults__ = {**by_name, argument: value}
        return
    defaults = list(function.__defaults__ or ())
    positional = list(inspect.signature(function).parameters)[: function.__code__.co_argcount]
    named = positional[len(positional) - len(defaults) :]
    if argument in named:
        defaults[named.index(argument)] = value
        function.__defaults__ = tuple(defaults)
