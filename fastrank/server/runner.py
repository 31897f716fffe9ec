"""Runs calls on models: which pipeline, what becomes of its results, and what each failure means to a client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import numpy as np

from fastrank.bm25 import BM25, BM25Index
from fastrank.dense import heads
from fastrank.engine.batching import Batch
from fastrank.engine.chunking import parts_of_one
from fastrank.engine.overflow import DEFAULT, Chunking, ChunkVectors, Join, Overflow, Prepared
from fastrank.engine.pipeline import Pipeline
from fastrank.engine.scheduler import Scheduler
from fastrank.errors import FastrankError, TextTooLongError
from fastrank.late_interaction import heads as of_tokens
from fastrank.late_interaction.explanation import Explanation, tokens
from fastrank.maxsim import maxsim
from fastrank.rerank import heads as of_pairs
from fastrank.server import cutting
from fastrank.server.catalog import Catalog, Found, Task
from fastrank.server.jobs import Jobs, Lane, Run
from fastrank.server.metrics import Metrics
from fastrank.server.models import Served
from fastrank.server.settings import Settings
from fastrank.server.timing import Timing
from fastrank.server.wire import calls, numbers
from fastrank.server.wire.calls import Cost, Floats
from fastrank.server.wire.errors import ApiError, Kind

T = TypeVar("T")
_SLICE = 64  # texts that run without looking whether the request is still wanted, where no model runs them


class _Lanes(NamedTuple):
    """The pipelines of a loaded model."""

    documents: Lane
    queries: Lane


class ModelRunner:
    """Runs calls on the models of a catalog.

    Args:
        catalog: the models.
        settings: of the server.
        metrics: count what is loaded and what ran.
    """

    def __init__(self, catalog: Catalog[Served], settings: Settings, metrics: Metrics) -> None:
        self._catalog = catalog
        self._settings = settings
        self._metrics = metrics
        self.jobs = Jobs(
            settings.max_waiting_tokens,
            metrics,
            truncate=settings.truncate,
            characters=settings.limits.characters,
        )
        metrics.waiting(lambda: self.jobs.waiting_requests, lambda: self.jobs.waiting_tokens)
        self._lanes: dict[tuple[Any, ...], Lane] = {}
        self._scheduler: Scheduler | None = None
        self._ready = False
        for model in catalog.models:
            metrics.loaded(model.name, loaded=False)

    # -- the models ---------------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Load the models that were named. The hidden ones wait until they are needed."""
        for model in self._catalog.models:
            self._loaded(model)
        self._ready = True

    def ready(self) -> bool:
        """Whether the models that were named are loaded."""
        return self._ready

    def healthy(self) -> bool:
        """Whether no run takes suspiciously long."""
        return self.jobs.healthy()

    def close(self) -> None:
        """Free all models' memory."""
        for model in (*self._catalog.models, *self._catalog.hidden):
            model.close()

    def describe(self, model: Served) -> dict[str, Any]:
        """What `/info` says of a model."""
        reranks = model.task == "rerank"
        labels = {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
        known: dict[str, Any] = {} if not model.loaded else dict(model.get().info())
        return {
            "model_id": model.name,
            "model_sha": None,
            "model_dtype": known.get("precision", "float32"),
            "served_model_name": model.name,
            "model_type": {"reranker": labels} if reranks else {"embedding": {"pooling": "mean"}},
            "max_input_length": known.get("max_length"),
            "max_batch_tokens": 512,
            "tokenization_workers": known.get("threads"),
        }

    # -- calls --------------------------------------------------------------------------------------------------------

    async def run(self, call: calls.Call, timing: Timing) -> calls.Result:
        """The result of a call.

        Raises:
            ApiError: refused or failed.
        """
        match call:
            case calls.Embed():
                return await self._embed(call, timing)
            case calls.EmbedTokens():
                return await self._embed_tokens(call, timing)
            case calls.EmbedSparse():
                return await self._embed_sparse(call, timing)
            case calls.Score():
                return await self._score(call, timing)
            case calls.Match():
                return await self._match(call, timing)
            case calls.Tokenize():
                return await self._tokenize(call, timing)

    async def _embed(self, call: calls.Embed, timing: Timing) -> calls.Vectors:
        found = await self._model(call.model, ["dense"], timing)
        role = call.role or self._settings.default_role
        if call.one_document:
            rows = await self._parts(found.model, call, timing)
        else:
            lane = self._dense(found.model, role, raw=call.normalize is False)
            ran = await self._run(lane, call, timing, join=heads.mean)
            rows = np.stack(ran.results)
        _check_finite(rows, call.field)
        if call.normalize:
            rows = numbers.normalized(rows)
        wanted = found.dimensions if call.dimensions is None else call.dimensions
        found.model.get().note_dim(call.dimensions)
        shortening = found.model.get().load().settings.shortening
        rows = numbers.fitted(rows, wanted, found.most_dimensions, layer_norm=shortening.layer_norm)
        return calls.Vectors(found.model.name, rows, _cost(timing))

    async def _parts(self, model: Served, call: calls.Embed, timing: Timing) -> Floats:
        """Vectors of texts that are parts of one document: late chunking."""
        pipeline: Pipeline[Any] | None = model.get().load().late_chunks
        if pipeline is None:
            message = f"late_chunking needs a model whose pooling is the mean of token states; {model.name} has another"
            raise ApiError(Kind.INVALID, message, "late_chunking")
        lane = self._lane(model, "late chunks", lambda loaded: loaded.late_chunks)
        prefix = pipeline.prefix if call.prompt is None else call.prompt

        def prepare(texts: Sequence[Any]) -> Prepared:
            try:
                tokens, group = parts_of_one(pipeline.tokenizer, prefix, texts, call.field)
            except TextTooLongError as error:
                return Prepared([], [], [], error)
            return Prepared(tokens, [], [group])

        ran = await self.jobs.run(lane, call.texts, timing, field=call.field, prepare=prepare)
        rows: Floats = ran.results[0]
        return rows

    async def _embed_tokens(self, call: calls.EmbedTokens, timing: Timing) -> calls.TokenVectors:
        found = await self._model(call.model, ["late", "dense"], timing)
        if found.model.task == "late":
            lane = self._late(found.model, call.role)
        else:
            lane = self._states(found.model, call.role or self._settings.default_role)
        ran = await self._run(lane, call, timing)
        for position, rows in enumerate(ran.results):
            _check_finite(rows, f"{call.field}[{position}]")
        return calls.TokenVectors(found.model.name, ran.results, _cost(timing))

    async def _embed_sparse(self, call: calls.EmbedSparse, timing: Timing) -> calls.SparseVectors:
        found = await self._model(call.model, ["sparse"], timing)
        rows = await self._sparse(found.model, call.texts, call.role == "query", call, timing)
        return calls.SparseVectors(found.model.name, [(row.indices, row.values) for row in rows], _cost(timing))

    async def _score(self, call: calls.Score, timing: Timing) -> calls.Scores:
        tasks: list[Task] = [call.method or "rerank"]
        found = await self._model(call.model, tasks, timing)
        if call.max_document_tokens is not None:
            call = replace(call, pairs=await asyncio.to_thread(self._shortened, found.model, call))
        score = {
            "rerank": self._by_cross_encoder,
            "dense": self._by_cosine,
            "late": self._by_maxsim,
            "sparse": self._by_words,
        }[found.model.task]
        raw, values, lengths = await score(found.model, call, timing)
        for position, value in enumerate(raw):
            _check_finite(np.asarray(value), f"{call.field}[{position}]")
        return calls.Scores(found.model.name, values, raw, lengths=lengths, cost=_cost(timing))

    async def _match(self, call: calls.Match, timing: Timing) -> calls.Matches:
        found = await self._model(call.model, ["late"], timing)
        asked, read = self._late(found.model, "query"), self._late(found.model, "passage")
        query = await self._run(asked, call, timing, [call.query])
        document = await self._run(read, call, timing, [call.document])
        settings = found.model.get().load().settings
        of_query, of_document = query.results[0], document.results[0]

        def explained() -> Explanation:
            return Explanation(
                call.query,
                call.document,
                tokens(asked.pipeline, settings, call.query, query=True, count=len(of_query)),
                tokens(read.pipeline, settings, call.document, query=False, count=len(of_document)),
                np.asarray(of_query @ of_document.T, np.float32),
            )

        try:
            explanation = await asyncio.to_thread(explained)
        except ValueError as error:  # its embeddings are pooled
            raise ApiError(Kind.WRONG_TASK, str(error), "model") from error
        return calls.Matches(found.model.name, explanation.as_dict(), _cost(timing))

    async def _tokenize(self, call: calls.Tokenize, timing: Timing) -> calls.Pieces:
        found = await self._model(call.model, ["dense", "rerank", "late", "sparse"], timing)
        tokenizer = self._lane(found.model, "documents", lambda loaded: loaded.documents).pipeline.tokenizer

        def pieces() -> list[list[calls.Piece]]:
            return [[_piece(text, span) for span in tokenizer.spans(text, special=call.special)] for text in call.texts]

        rows = await asyncio.to_thread(pieces)
        timing.tokens = sum(map(len, rows))
        return calls.Pieces(found.model.name, rows, _cost(timing))

    # -- scores: raw, in [0, 1], and tokens of each document ----------------------------------------------------------

    async def _by_cross_encoder(self, model: Served, call: calls.Score, timing: Timing) -> _Scored:
        lane = self._lane(model, "documents", lambda loaded: loaded.documents)
        ran = await self._run(lane, call, timing, call.pairs, join=of_pairs.best)
        activation = self._activation(model)
        given = np.asarray(ran.results, np.float64)
        if activation == "none":
            return _Scored(given.tolist(), _sigmoid(given).tolist(), ran.lengths)
        with np.errstate(divide="ignore"):
            raw = np.clip(np.log(given) - np.log1p(-given), -100, 100)  # whose sigmoid the score is
        return _Scored(raw.tolist(), given.tolist(), ran.lengths)

    async def _by_cosine(self, model: Served, call: calls.Score, timing: Timing) -> _Scored:
        queries, documents, pairs = _sides(call)
        asked = await self._run(self._dense(model, "query"), call, timing, queries)
        read = await self._run(self._dense(model, "passage"), call, timing, documents, join=heads.listed)
        left = numbers.normalized(np.stack(asked.results))
        right = [numbers.normalized(_chunks(result)) for result in read.results]
        raw = [float((right[document] @ left[query]).max()) for query, document in pairs]
        return _Scored(raw, [_unit(cosine) for cosine in raw], [read.lengths[document] for _, document in pairs])

    async def _by_maxsim(self, model: Served, call: calls.Score, timing: Timing) -> _Scored:
        queries, documents, pairs = _sides(call)
        asked = await self._run(self._late(model, "query"), call, timing, queries)
        read = await self._run(self._late(model, "passage"), call, timing, documents, join=of_tokens.listed)

        def scores() -> list[float]:
            return [float(maxsim(asked.results[q], _parts(read.results[d])).max()) for q, d in pairs]

        raw = await asyncio.to_thread(scores)
        tokens = [len(asked.results[query]) or 1 for query, _ in pairs]
        values = [_unit(score / of_query) for score, of_query in zip(raw, tokens, strict=True)]
        return _Scored(raw, values, [read.lengths[document] for _, document in pairs])

    async def _by_words(self, model: Served, call: calls.Score, timing: Timing) -> _Scored:
        queries, documents, pairs = _sides(call)
        if _is_bm25(model):
            begun = time.perf_counter()
            timing.started = True
            with self.jobs.admitted(sum(len(document) // 4 for document in documents)):
                raw = await asyncio.to_thread(_bm25_scores, queries, documents, pairs)
            timing.inference += time.perf_counter() - begun
            return _Scored(raw, [score / (1 + score) for score in raw], [])
        asked = await self._sparse(model, queries, True, call, timing)
        read = await self._sparse(model, documents, False, call, timing)
        weights = [row.as_dict() for row in read]
        raw = [
            sum(value * weights[document].get(index, 0.0) for index, value in asked[query].as_dict().items())
            for query, document in pairs
        ]
        return _Scored(raw, [max(0.0, score) / (1 + max(0.0, score)) for score in raw], [])

    # -- pipelines ----------------------------------------------------------------------------------------------------

    async def _model(self, name: str | None, tasks: Sequence[Task], timing: Timing) -> Found[Served]:
        """The model that answers, loaded."""
        found = self._catalog.find(name, tasks)
        if not found.model.loaded:
            try:
                await asyncio.to_thread(self._loaded, found.model)
            except (FastrankError, OSError) as error:
                raise ApiError(Kind.UNAVAILABLE, f"{found.model.name} cannot be loaded: {error}") from error
        timing.model = found.model.name
        return found

    def _loaded(self, model: Served) -> None:
        """Load a model; its runs share the threads of all others'."""
        loaded = model.get().load()
        session = getattr(loaded.documents, "session", None)
        if session is not None and session.on_cpu:
            if self._scheduler is None:
                self._scheduler = session.scheduler
            session.scheduler = self._scheduler
        self._metrics.loaded(model.name, loaded=True)

    async def _run(
        self, lane: Lane, call: Any, timing: Timing, texts: Sequence[Any] | None = None, join: Join | None = None
    ) -> Run:
        """The results of texts; `join` makes one of those of a text's chunks, where the call wants chunks."""
        chunks: calls.Chunks | None = getattr(call, "chunks", None) if join else None
        overflow = DEFAULT
        if chunks is not None:
            overflow = Overflow("chunk", Chunking(chunks.size, chunks.overlap, most=chunks.most), join)
        return await self.jobs.run(
            lane,
            call.texts if texts is None else texts,
            timing,
            truncate=getattr(call, "truncate", None),
            side=getattr(call, "side", "right"),
            field=call.field,
            prompt=getattr(call, "prompt", None),
            overflow=overflow,
        )

    def _lane(self, model: Served, kind: str, choose: Callable[[Any], Pipeline[Any]]) -> Lane:
        """The lane of a pipeline of a model, made once."""
        key = (model.name, model.task, kind)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(model.name, choose(model.get().load()))
        return lane

    def _dense(self, model: Served, role: calls.Role, *, raw: bool = False) -> Lane:
        def choose(loaded: Any) -> Pipeline[Any]:
            pipeline = _of_role(loaded, role)
            if raw and loaded.settings.normalize:
                head = heads.dense(model.name, loaded.settings._replace(normalize=False))
                return replace(pipeline, head=head)
            return pipeline

        return self._lane(model, f"{role} raw" if raw else str(role), choose)

    def _states(self, model: Served, role: calls.Role) -> Lane:
        """A dense model's tokens, before they are pooled."""
        return self._lane(model, f"{role} states", lambda loaded: replace(_of_role(loaded, role), head=_states))

    def _late(self, model: Served, role: calls.Role) -> Lane:
        if role == "query":
            return self._lane(model, "queries", lambda loaded: loaded.queries)
        return self._lane(model, "documents", lambda loaded: loaded.documents)

    async def _sparse(
        self, model: Served, texts: Sequence[str], as_query: bool, call: Any, timing: Timing
    ) -> list[Any]:
        pipeline = getattr(model.get().load(), "queries" if as_query else "documents")
        if isinstance(pipeline, Pipeline):
            kind = "queries" if as_query else "documents"
            lane = self._lane(model, kind, lambda loaded: getattr(loaded, kind))
            ran = await self._run(lane, call, timing, texts)
            for position, row in enumerate(ran.results):
                _check_finite(row.values, f"{call.field}[{position}]")
            return ran.results
        begun = time.perf_counter()
        timing.started = True
        rows: list[Any] = []
        with self.jobs.admitted(sum(len(text) // 4 for text in texts)):
            for start in range(0, len(texts), _SLICE):
                part = list(texts[start : start + _SLICE])
                rows += await asyncio.to_thread(_all, pipeline, part)
        timing.tokens += await asyncio.to_thread(lambda: sum(pipeline.token_counts(iter(texts), _SLICE)))
        timing.inference += time.perf_counter() - begun
        return rows

    def _shortened(self, model: Served, call: calls.Score) -> list[tuple[str, str] | str]:
        """The pairs, with documents truncated to the call's limit of tokens."""
        most = call.max_document_tokens or 1
        pipeline = model.get().load().documents
        if not isinstance(pipeline, Pipeline):
            return list(call.pairs)
        return [
            pair if isinstance(pair, str) else (pair[0], cutting.beginning(pipeline.tokenizer, pair[1], most))
            for pair in call.pairs
        ]

    def _activation(self, model: Served) -> str:
        activation: str = model.get().load().settings.activation
        return activation


class _Scored(NamedTuple):
    raw: list[float]
    values: list[float]
    lengths: list[int]


def _chunks(result: Any) -> Floats:
    """The vectors of a text, (chunks, dim): one, where it is not read in chunks."""
    rows: Floats = result.vectors if isinstance(result, ChunkVectors) else result[None]
    return rows


def _parts(result: Any) -> list[Floats]:
    """The token vectors of a text, of each of its chunks."""
    return list(result.vectors) if isinstance(result, ChunkVectors) else [result]


def _of_role(loaded: Any, role: calls.Role) -> Pipeline[Any]:
    pipeline: Pipeline[Any] = loaded.queries if role == "query" else loaded.documents
    return loaded.passages if role == "passage" else pipeline


def _all(pipeline: Any, texts: Sequence[str]) -> list[Any]:
    return list(pipeline.run(iter(texts), _SLICE, 1))


def _states(output: Floats, batch: Batch) -> list[Floats]:
    if output.ndim != 3:
        raise ApiError(Kind.WRONG_TASK, "This model's graph gives one vector for a text, none for its tokens", "model")
    return [states[: int(count)].copy() for states, count in zip(output, batch.mask.sum(axis=1), strict=True)]


def _sides(call: calls.Score) -> tuple[list[str], list[str], list[tuple[int, int]]]:
    """The different queries and documents of pairs, and the pairs as positions in them."""
    queries: dict[str, int] = {}
    documents: dict[str, int] = {}
    pairs = []
    for pair in call.pairs:
        if isinstance(pair, str):
            message = "A single text can only be classified by a cross-encoder; send a pair"
            raise ApiError(Kind.WRONG_TASK, message, call.field)
        query, document = pair
        pairs.append((queries.setdefault(query, len(queries)), documents.setdefault(document, len(documents))))
    return list(queries), list(documents), pairs


def _bm25_scores(queries: Sequence[str], documents: Sequence[str], pairs: Iterable[tuple[int, int]]) -> list[float]:
    """BM25 with the statistics of these documents."""
    index = BM25Index(BM25())
    scores = [index.scores(query, documents) for query in queries]
    return [float(scores[query][document]) for query, document in pairs]


def _is_bm25(model: Served) -> bool:
    return not isinstance(model.get().load().documents, Pipeline)


def _cost(timing: Timing) -> Cost:
    return Cost(timing.tokens, timing.truncated, timing.total())


def _sigmoid(logits: Any) -> Any:
    return 0.5 * (1 + np.tanh(0.5 * logits))  # does not overflow


def _unit(cosine: float) -> float:
    """From [-1, 1] to [0, 1]."""
    return min(1.0, max(0.0, (1 + cosine) / 2))


def _check_finite(values: Any, name: str) -> None:
    finite = np.isfinite(values)
    if finite.all():
        return
    if values.ndim == 2 and not name.endswith("]"):
        name = f"{name}[{int(np.flatnonzero(~finite.all(axis=1))[0])}]"
    raise ApiError(Kind.NOT_FINITE, f"The model returned NaN or infinity for {name}. Its weights may be damaged.", name)


def _piece(text: str, span: Any) -> calls.Piece:
    if span.special:
        return calls.Piece(span.id, span.token, True, None, None)
    return calls.Piece(span.id, text[span.start : span.stop], False, span.start, span.stop)
