"""Which path is read by which function."""

from __future__ import annotations

from collections.abc import Callable

from fastrank.server.wire import cohere, embeddings, ollama, page, rerank, tei
from fastrank.server.wire.calls import Exchange
from fastrank.server.wire.fields import Request

POST: dict[str, Callable[[Request], Exchange]] = {
    "/v1/rerank": rerank.rerank,
    "/v2/rerank": rerank.rerank,
    "/rerank": rerank.rerank,
    "/reranking": rerank.rerank,
    "/v1/reranking": rerank.rerank,
    "/v1/ranking": rerank.nvidia,
    "/ranking": rerank.nvidia,
    "/score": rerank.score,
    "/v1/score": rerank.score,
    "/v1/embeddings": embeddings.openai,
    "/embeddings": embeddings.openai,
    "/embedding": embeddings.llama_cpp,
    "/v1/embed": cohere.embed,
    "/v2/embed": cohere.embed,
    "/": tei.root,
    "/invocations": tei.root,
    "/embed": tei.embed,
    "/embed_all": tei.embed_all,
    "/embed_sparse": tei.embed_sparse,
    "/predict": tei.predict,
    "/similarity": tei.similarity,
    "/tokenize": tei.tokenize,
    "/page/match": page.match,
    "/api/embed": ollama.embed,
    "/api/embeddings": ollama.embeddings,
}


def reader(path: str) -> Callable[[Request], Exchange] | None:
    """The function that reads requests to a folded path; None: there is none."""
    if path.startswith("/v1/retrieval/") and path.endswith("/reranking"):
        return rerank.nvidia  # /v1/retrieval/{model}/reranking
    return POST.get(path)


def name(path: str) -> str | None:
    """What logs and metrics call a folded path: one of a few words; None: no route."""
    if path in POST:
        return path
    return "/v1/retrieval/{model}/reranking" if reader(path) is not None else None
