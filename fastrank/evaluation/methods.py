"""Rankings of a collection by each kind of model. The search is exact."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice, tee
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastrank.evaluation.beir import Dataset, Document
from fastrank.evaluation.metrics import ranked
from fastrank.evaluation.search import Best, SparseIndex
from fastrank.fusion import reciprocal_rank_fusion

if TYPE_CHECKING:
    from fastrank.bm25 import BM25
    from fastrank.dense import TextEmbedding
    from fastrank.late_interaction import LateInteractionTextEmbedding
    from fastrank.rerank import TextCrossEncoder
    from fastrank.sparse import SparseTextEmbedding

DEPTH = 100  # documents ranked for each query: what Recall@100 needs
BLOCK = 4096  # document vectors in memory at once

Similarity: TypeAlias = Literal["cosine", "dot"]
Documents: TypeAlias = "Iterator[Document]"


@dataclass(frozen=True)
class Outcome:
    """What a method did on one collection.

    Attributes:
        rankings: query id -> document ids, best first.
        documents: how many were encoded.
        encoding: seconds spent on that.
    """

    rankings: Mapping[str, Sequence[str]]
    documents: int
    encoding: float


def _as_they_are(documents: Documents) -> Documents:
    return documents


def dense(
    model: TextEmbedding,
    dataset: Dataset,
    depth: int = DEPTH,
    similarity: Similarity = "cosine",
    shown: Callable[[Documents], Documents] = _as_they_are,
) -> Outcome:
    """One vector a text, compared with all documents.

    Args:
        model: of the vectors; prompts of queries and passages are those of the model.
        dataset: the collection.
        depth: documents ranked for each query.
        similarity: "cosine" or "dot" product.
        shown: is given the documents and gives them back, for a progress bar.
    """
    queries = matrix(model.query_embed(list(dataset.queries.values())), similarity)
    best = Best(list(dataset.queries), depth)
    for_ids, for_texts = tee(shown(dataset.documents()))
    ids = (document.id for document in for_ids)
    vectors = iter(model.passage_embed(document.text for document in for_texts))
    documents, encoding = 0, 0.0
    while True:
        start = time.perf_counter()
        block = list(islice(vectors, BLOCK))
        encoding += time.perf_counter() - start
        if not block:
            return Outcome(best.rankings(), documents, encoding)
        documents += len(block)
        best.add_vectors(queries, list(islice(ids, len(block))), matrix(block, similarity))


def bm25(
    words: BM25, dataset: Dataset, depth: int = DEPTH, shown: Callable[[Documents], Documents] = _as_they_are
) -> Outcome:
    """Words, by Lucene's formula (`fastrank.bm25.BM25Index`); arguments as `dense`, `words` says how they are found."""
    from fastrank.bm25 import BM25Index

    start = time.perf_counter()
    for_ids, for_texts = tee(shown(dataset.documents()))
    index = BM25Index(words)
    index.add(document.text for document in for_texts)
    ids = [document.id for document in for_ids]
    encoding = time.perf_counter() - start
    best = Best(list(dataset.queries), depth)
    for number, query in enumerate(dataset.queries.values()):
        positions, scores = index.search(query, depth + 1)
        if len(positions):
            best.add([ids[at] for at in positions.tolist()], scores[None], number)
    return Outcome(best.rankings(), len(ids), encoding)


def sparse(
    model: SparseTextEmbedding,
    dataset: Dataset,
    depth: int = DEPTH,
    shown: Callable[[Documents], Documents] = _as_they_are,
) -> Outcome:
    """One sparse vector a text (the SPLADE family), compared by dot product with all documents; arguments as `dense`.

    Vectors that leave the IDF to a store (BM25, BM42, MiniCOIL) are compared without it: for BM25 there is `bm25`.
    """
    start = time.perf_counter()
    for_ids, for_texts = tee(shown(dataset.documents()))
    vectors = list(model.passage_embed(document.text for document in for_texts))
    ids = [document.id for document in for_ids]
    encoding = time.perf_counter() - start
    index = SparseIndex([each.indices for each in vectors], [each.values for each in vectors])
    best = Best(list(dataset.queries), depth)
    for number, query in enumerate(model.query_embed(list(dataset.queries.values()))):
        scores = index.scores(query.indices, query.values)
        found = np.flatnonzero(scores > 0)
        if len(found):
            best.add([ids[at] for at in found.tolist()], scores[found][None], number)
    return Outcome(best.rankings(), len(ids), encoding)


def hybrid(outcomes: Sequence[Outcome], depth: int = DEPTH) -> Outcome:
    """Several methods on one collection by reciprocal rank fusion of what each ranks best."""
    rankings = {}
    for query in dict.fromkeys(chain.from_iterable(outcome.rankings for outcome in outcomes)):
        lists = [outcome.rankings.get(query, []) for outcome in outcomes]
        ids = list(dict.fromkeys(chain.from_iterable(lists)))
        numbers = {document: number for number, document in enumerate(ids)}
        fused = reciprocal_rank_fusion([[numbers[document] for document in ranking] for ranking in lists])
        rankings[query] = [ids[number] for number, _ in fused[:depth]]
    return Outcome(rankings, max(each.documents for each in outcomes), sum(each.encoding for each in outcomes))


def reranked(
    model: LateInteractionTextEmbedding | TextCrossEncoder,
    candidates: Outcome,
    dataset: Dataset,
    depth: int = DEPTH,
    shown: Callable[[Documents], Documents] = _as_they_are,
) -> Outcome:
    """What another method ranks best, ranked anew by MaxSim or a cross-encoder.

    With late interaction each document is embedded once and its vectors are kept in float16; a cross-encoder reads it
    beside each query.

    Args:
        model: ranks.
        candidates: what to rank anew, such as the outcome of `bm25`.
        dataset: the collection of both.
        depth: candidates of each query that are ranked.
        shown: as for `dense`; the documents are those among the candidates.
    """
    from fastrank.rerank import TextCrossEncoder

    wanted = set(chain.from_iterable(ranking[:depth] for ranking in candidates.rankings.values()))
    start = time.perf_counter()
    found = shown(document for document in dataset.documents() if document.id in wanted)
    scores = _relevance_of(model, found) if isinstance(model, TextCrossEncoder) else _maxsim_of(model, found)
    encoding = time.perf_counter() - start
    rankings = {
        query: _best(scores(text, candidates.rankings.get(query, [])[:depth]), depth)
        for query, text in dataset.queries.items()
    }
    return Outcome(rankings, len(wanted), encoding)


_Scores: TypeAlias = "Callable[[str, Sequence[str]], list[tuple[float, str]]]"


def _maxsim_of(model: LateInteractionTextEmbedding, documents: Documents) -> _Scores:
    """Scores by MaxSim: a function of the query and the candidates' ids."""
    from fastrank.maxsim import maxsim

    for_ids, for_texts = tee(documents)
    tokens = model.embed(document.text for document in for_texts)
    vectors = {each.id: found.astype(np.float16) for each, found in zip(for_ids, tokens, strict=True)}

    def scores(query: str, ids: Sequence[str]) -> list[tuple[float, str]]:
        if not ids:
            return []
        asked = next(model.query_embed(query))
        return list(zip(maxsim(asked, [vectors[each] for each in ids]).tolist(), ids, strict=True))

    return scores


def _relevance_of(model: TextCrossEncoder, documents: Documents) -> _Scores:
    texts = {document.id: document.text for document in documents}

    def scores(query: str, ids: Sequence[str]) -> list[tuple[float, str]]:
        return list(zip(model.rerank(query, [texts[each] for each in ids]), ids, strict=True))

    return scores


def _best(scores: list[tuple[float, str]], depth: int) -> list[str]:
    return [document for _, document in ranked(scores, depth)]


def matrix(vectors: Iterable[NDArray[np.float32]], similarity: str) -> NDArray[np.float32]:
    """Vectors as rows, for cosine of length 1."""
    rows: NDArray[np.float32] = np.stack(list(vectors)).astype(np.float32, copy=False)
    if similarity == "cosine":
        rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-12))
    return rows
