"""mteb evaluates fastrank's models on tasks that are defined here: no download, and the real all-MiniLM's quality."""

import numpy as np
import pytest
from support.hosts import host
from support.processes import run_python
from support.texts import ANSWER, NOTES, QUESTION

mteb = host("mteb", torch=True)
from datasets import Dataset  # noqa: E402
from mteb.abstasks.retrieval import AbsTaskRetrieval  # noqa: E402
from mteb.abstasks.sts import AbsTaskSTS  # noqa: E402
from mteb.abstasks.task_metadata import TaskMetadata  # noqa: E402
from mteb.models import CrossEncoderProtocol, EncoderProtocol, SearchProtocol  # noqa: E402

from fastrank import LateInteractionTextEmbedding, SparseTextEmbedding, TextCrossEncoder, TextEmbedding  # noqa: E402
from fastrank.bm25 import BM25  # noqa: E402
from fastrank.errors import ModelNotFoundError  # noqa: E402
from fastrank.evaluation import metrics  # noqa: E402
from fastrank.integrations.mteb import (  # noqa: E402
    FastrankCrossEncoder,
    FastrankEncoder,
    FastrankLateInteraction,
    FastrankSparse,
)

DOCUMENTS = {
    "d1": ("Cats", "the red cat is fast"),
    "d2": ("", "one dog and one cat"),
    "d3": ("Paris", "the capital of france"),
    "d4": ("", "how fast the dog is"),
}
QUERIES = {"q1": "red cat", "q2": "the capital", "q3": "fast dog"}
QRELS = {"q1": {"d1": 2, "d2": 1}, "q2": {"d3": 1}, "q3": {"d4": 1}}


def metadata(name, kind, main_score):
    return TaskMetadata(
        name=name,
        description="Made up here.",
        dataset={"path": "acme/none", "revision": "1"},
        type=kind,
        category="t2t",
        modalities=["text"],
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score=main_score,
        date=("2024-01-01", "2024-01-02"),
        domains=["Web"],
        task_subtypes=[],
        license="cc0-1.0",
        annotations_creators="derived",
        dialect=[],
        sample_creation="created",
        bibtex_citation="",
    )


class Pets(AbsTaskRetrieval):
    metadata = metadata("Pets", "Retrieval", "ndcg_at_10")
    top_ranked = None
    documents, queries, qrels = DOCUMENTS, QUERIES, QRELS

    def load_data(self, **_):
        data = {
            "corpus": Dataset.from_list(
                [{"id": each, "title": title, "text": text} for each, (title, text) in self.documents.items()]
            ),
            "queries": Dataset.from_list([{"id": each, "text": text} for each, text in self.queries.items()]),
            "relevant_docs": self.qrels,
            "top_ranked": self.top_ranked,
        }
        self.dataset = {"default": {"test": data}}
        self.data_loaded = True


class Reranked(Pets):
    metadata = metadata("PetsReranking", "Reranking", "map_at_1000")
    top_ranked = {query: list(DOCUMENTS) for query in QUERIES}  # noqa: RUF012 - mteb reads it


class Similar(AbsTaskSTS):
    metadata = metadata("SimilarPets", "STS", "cosine_spearman")
    min_score, max_score = 0, 5
    pairs = (("red cat", "red cat", 5.0), ("red cat", "fast cat", 3.0), ("one dog", "capital of france", 0.0))

    def load_data(self, **_):
        rows = [dict(zip(("sentence1", "sentence2", "score"), pair, strict=True)) for pair in self.pairs]
        self.dataset = {"test": Dataset.from_list(rows)}
        self.data_loaded = True


def scores(model, task):
    """What mteb says of a model on a task."""
    result = mteb.evaluate(model, task, cache=None, show_progress_bar=False, co2_tracker=False)
    return result.task_results[0].scores["test"][0]


def texts():
    return [f"{title} {text}".strip() for title, text in DOCUMENTS.values()]


def expected(scores_of):
    """Metrics of rankings by these scores of all documents."""
    run = {
        query: [each for _, each in metrics.ranked(list(zip(scores_of(text), DOCUMENTS, strict=True)), 10)]
        for query, text in QUERIES.items()
    }
    return metrics.evaluate(run, QRELS, ["ndcg@10", "recall@1"])


def check(model, scores_of):
    found, own = scores(model, Pets()), expected(scores_of)
    assert found["ndcg_at_10"] == pytest.approx(own["ndcg@10"], abs=1e-4)
    assert found["recall_at_1"] == pytest.approx(own["recall@1"], abs=1e-4)


def test_dense(tiny_dense):
    model = FastrankEncoder(**tiny_dense)
    assert isinstance(model, EncoderProtocol)
    with TextEmbedding(**tiny_dense) as ours:
        passages = np.stack(list(ours.passage_embed(texts())))
        check(model, lambda query: (passages @ next(ours.query_embed(query))).tolist())
        vectors = np.stack(list(ours.embed([text for pair in Similar.pairs for text in pair[:2]])))
    cosines = (vectors[::2] * vectors[1::2]).sum(axis=1)
    found = scores(model, Similar())
    gold = [pair[2] for pair in Similar.pairs]
    assert found["cosine_spearman"] == pytest.approx(metrics.spearman(cosines, gold), abs=1e-4)


def test_late_interaction(tiny_late):
    model = FastrankLateInteraction(**tiny_late)
    assert isinstance(model, SearchProtocol)
    assert not isinstance(model, EncoderProtocol)
    with LateInteractionTextEmbedding(**tiny_late) as ours:
        check(model, lambda query: list(ours.rerank(query, texts())))
    assert scores(model, Reranked())["map_at_10"] > 0


def test_cross_encoder(tiny_cross_encoder):
    model = FastrankCrossEncoder(**tiny_cross_encoder)
    assert isinstance(model, CrossEncoderProtocol)
    with TextCrossEncoder(**tiny_cross_encoder) as ours:
        own = expected(lambda query: list(ours.rerank(query, texts())))
    assert scores(model, Reranked())["ndcg_at_10"] == pytest.approx(own["ndcg@10"], abs=1e-4)


def test_bm25():
    model = FastrankSparse()
    assert isinstance(model, SearchProtocol)
    bm25 = BM25(avg_len="auto", idf=True).fit(texts())
    documents = [dict(zip(ids.tolist(), values, strict=True)) for ids, values in bm25.documents(texts())]

    def scores_of(query):
        terms = bm25.queries([query])[0][0].tolist()
        return [sum(document.get(term, 0.0) for term in terms) for document in documents]

    check(model, scores_of)
    assert scores(FastrankSparse(language="german"), Pets())["ndcg_at_10"] > 0


def test_splade(tmp_path):
    from support import tiny_models

    from fastrank import ModelSource

    SparseTextEmbedding.add_custom_model("acme/splade", ModelSource(hf="acme/splade"), vocab_size=16, max_length=64)
    folder = tiny_models.write_model(tmp_path / "splade", tiny_models.tiny_encoder())
    with SparseTextEmbedding("acme/splade", specific_model_path=folder) as ours:
        documents = [vector.as_dict() for vector in ours.passage_embed(texts())]

        def scores_of(query):
            asked = next(ours.query_embed(query)).as_dict()
            return [sum(value * document.get(term, 0.0) for term, value in asked.items()) for document in documents]

        check(FastrankSparse("acme/splade", specific_model_path=str(folder)), scores_of)


def test_what_mteb_is_told():
    meta = FastrankEncoder("sentence-transformers/all-MiniLM-L6-v2", batch_size=8).mteb_model_meta
    assert (meta.name, meta.revision, meta.embed_dim) == ("sentence-transformers/all-MiniLM-L6-v2", "fastrank", 384)
    assert FastrankSparse("Qdrant/bm25", "mine").mteb_model_meta.revision == "mine"


@pytest.mark.real_model
def test_the_answer_is_found_first(real):
    class Notes(Pets):
        metadata = metadata("Notes", "Retrieval", "ndcg_at_10")
        documents = {f"n{number}": ("", note) for number, note in enumerate(NOTES)}  # noqa: RUF012
        queries = {"q": QUESTION}  # noqa: RUF012
        qrels = {"q": {f"n{NOTES.index(ANSWER)}": 1}}  # noqa: RUF012

    for kind in (FastrankEncoder, FastrankLateInteraction):
        assert scores(kind(**real), Notes())["ndcg_at_1"] == 1


def test_mistakes():
    with pytest.raises(ModelNotFoundError, match="acme/none"):
        FastrankEncoder("acme/none")
    with pytest.raises(TypeError, match="max_lenght"):
        FastrankEncoder("BAAI/bge-small-en-v1.5", max_lenght=3)
    with pytest.raises(ValueError, match="leaves the IDF to a vector store"):
        FastrankSparse("Qdrant/bm42-all-minilm-l6-v2-attentions")


def test_without_the_host():
    done = run_python("-c", "import sys; sys.modules['mteb'] = None; import fastrank.integrations.mteb")
    assert done.stderr.endswith("(in a checkout: pip install '.[mteb]')\n")
