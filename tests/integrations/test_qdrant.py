"""qdrant-client with fastrank: vectors made by hand, and by its own inference.

Dense vectors, BM25 and token vectors are those of the real all-MiniLM-L6-v2, so what is found first means something.
The cross-encoder has weights drawn at random: it shows the way only.
"""

import importlib.metadata
import sys

import numpy as np
import pytest
from conftest import REAL
from support import tiny_models
from support.hosts import host
from support.processes import run_python

from fastrank import LateInteractionTextEmbedding, SparseTextEmbedding, TextCrossEncoder, TextEmbedding
from fastrank.errors import ModelNotCachedError, ModelNotFoundError
from fastrank.integrations import qdrant

qdrant_client = host("qdrant_client")
from qdrant_client import models  # noqa: E402 - after the line that skips

VERSION = tuple(map(int, importlib.metadata.version("qdrant-client").split(".")[:2]))
BM25 = "Qdrant/bm25"
TOKENS = f"{REAL}-tokens"  # its name for token vectors, as it is a dense model too
TEXTS = [
    "The lighthouse keeper writes letters to a daughter who sails around the world.",
    "A retired detective opens a bakery and finds a body in the flour.",
    "Bees return to the valley after the dam is broken.",
    "An android that tends a greenhouse begins to dream of rain.",
    "Two rival violinists share a train compartment through the Alps.",
    "The mayor sells the town square to a company that makes fog.",
    "A chess computer refuses to play until somebody asks how it feels.",
    "Miners strike over bread, and the owner's son joins them.",
    "A cartographer maps a desert that moves every night.",
    "Grandmother's recipe for plum jam hides the numbers of a bank account.",
]
QUERY = "a chess machine that has feelings"
EXPECTED = 6  # the chess computer


@pytest.fixture
def real_by_name(monkeypatch, real_model_folder):
    """The real model can be had by its name, with no connection."""
    monkeypatch.setenv("FASTRANK_OFFLINE", "1")
    monkeypatch.setattr("fastrank.store.pip.installed", lambda _source: real_model_folder)


@pytest.fixture
def installed():
    qdrant.install()
    yield
    qdrant.uninstall()


@pytest.fixture
def client():
    with_collection = qdrant_client.QdrantClient(":memory:")
    create(with_collection)
    yield with_collection
    with_collection.close()


def create(client, name="films"):
    cosine = models.Distance.COSINE
    max_sim = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    client.create_collection(
        name,
        vectors_config={
            "dense": models.VectorParams(size=384, distance=cosine),
            "late": models.VectorParams(size=384, distance=cosine, multivector_config=max_sim),
        },
        sparse_vectors_config={"bm25": models.SparseVectorParams(modifier=models.Modifier.IDF)},
    )


def points(vectors):
    return [
        models.PointStruct(id=number, vector=vector, payload={"text": text})
        for number, (vector, text) in enumerate(zip(vectors, TEXTS, strict=True))
    ]


def hybrid(client, dense, bm25, late):
    """Candidates by dense vectors and by BM25, ranked by token vectors."""
    prefetch = [
        models.Prefetch(query=dense, using="dense", limit=6),
        models.Prefetch(query=bm25, using="bm25", limit=6),
    ]
    found = client.query_points("films", prefetch=prefetch, query=late, using="late", limit=5, with_payload=True)
    return [(point.id, point.score) for point in found.points]


def documents(text):
    return {
        "dense": models.Document(text=text, model=REAL),
        "bm25": models.Document(text=text, model=BM25),
        "late": models.Document(text=text, model=TOKENS),
    }


def explicit(client):
    """The hybrid search with vectors of our own making."""
    dense, bm25, late = TextEmbedding(REAL), SparseTextEmbedding(BM25), LateInteractionTextEmbedding(REAL)
    rows = zip(dense.embed(TEXTS), bm25.embed(TEXTS), late.embed(TEXTS), strict=True)
    client.upsert("films", points([{"dense": d, "bm25": b.as_object(), "late": t} for d, b, t in rows]))
    words = models.SparseVector(**next(bm25.query_embed(QUERY)).as_object())
    return hybrid(client, next(dense.query_embed(QUERY)), words, next(late.query_embed(QUERY)))


@pytest.mark.real_model
def test_hybrid_search_with_explicit_vectors(client, real_by_name):
    found = explicit(client)
    assert found[0][0] == EXPECTED
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)


@pytest.mark.real_model
@pytest.mark.parametrize("way", ["upsert", "upload_points", "upload_points in parallel"])
def test_hybrid_search_with_documents_finds_the_same(installed, client, real_by_name, way):
    expected = explicit(client)
    client.delete_collection("films")
    create(client)
    given = points(map(documents, TEXTS))
    if way == "upsert":
        client.upsert("films", given)
    else:
        client.upload_points("films", given, parallel=2 if "parallel" in way else 1, batch_size=3)
    assert client.count("films").count == len(TEXTS)
    query = documents(QUERY)
    found = hybrid(client, query["dense"], query["bm25"], query["late"])
    assert [number for number, _ in found] == [number for number, _ in expected]
    assert [score for _, score in found] == pytest.approx([score for _, score in expected], abs=1e-5)


@pytest.mark.real_model
def test_documents_become_fastembeds_vectors(installed, client, real_by_name):
    """Cut at 128 tokens, no prefix: what is in a collection made with FastEmbed."""
    long = "rain on the greenhouse roof " * 60
    client.upsert("films", [models.PointStruct(id=0, vector={"dense": models.Document(text=long, model=REAL)})])
    stored = np.array(client.retrieve("films", [0], with_vectors=True)[0].vector["dense"])
    for limit, same in [(128, True), (256, False)]:
        ours = next(TextEmbedding(REAL, max_length=limit).embed(long))
        assert (stored @ ours > 1 - 1e-6) is np.bool_(same)


@pytest.mark.real_model
def test_an_async_client_embeds_too(installed, real_by_name):
    import asyncio

    async def search():
        client = qdrant_client.AsyncQdrantClient(":memory:")
        size = client.get_embedding_size(REAL)
        params = models.VectorParams(size=size, distance=models.Distance.COSINE)
        await client.create_collection("films", vectors_config=params)
        given = [models.PointStruct(id=n, vector=models.Document(text=t, model=REAL)) for n, t in enumerate(TEXTS)]
        await client.upsert("films", given)
        found = await client.query_points("films", query=models.Document(text=QUERY, model=REAL), limit=1)
        await client.close()
        return found.points[0].id

    assert asyncio.run(search()) == EXPECTED


@pytest.mark.real_model
def test_qdrants_own_engine_ranks_the_same(client, real_by_name, tmp_path):
    """`:memory:` is Python; qdrant-edge is the server's Rust."""
    edge = host("qdrant_edge")
    dense, bm25, late = TextEmbedding(REAL), SparseTextEmbedding(BM25), LateInteractionTextEmbedding(REAL)
    cosine, max_sim = edge.Distance.Cosine, edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim)
    config = edge.EdgeConfig(
        vectors={
            "dense": edge.EdgeVectorParams(size=384, distance=cosine),
            "late": edge.EdgeVectorParams(size=384, distance=cosine, multivector_config=max_sim),
        },
        sparse_vectors={"bm25": edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf)},
    )
    shard = edge.EdgeShard.create(str(tmp_path), config)

    def sparse(vector):
        return edge.SparseVector(indices=vector.indices.tolist(), values=vector.values.tolist())

    rows = zip(dense.embed(TEXTS), bm25.embed(TEXTS), late.embed(TEXTS), strict=True)
    given = [
        edge.Point(id=number, vector={"dense": d.tolist(), "bm25": sparse(b), "late": t.tolist()}, payload={})
        for number, (d, b, t) in enumerate(rows)
    ]
    shard.update(edge.UpdateOperation.upsert_points(given))
    query = [next(model.query_embed(QUERY)) for model in (dense, bm25, late)]
    nearest = edge.Query.Nearest
    prefetches = [
        edge.Prefetch(limit=6, query=nearest(query[0].tolist(), using="dense")),
        edge.Prefetch(limit=6, query=nearest(sparse(query[1]), using="bm25")),
    ]
    last = nearest(query[2].tolist(), using="late")
    found = shard.query(edge.QueryRequest(limit=5, with_payload=False, query=last, prefetches=prefetches))
    shard.close()
    expected = explicit(client)
    assert [point.id for point in found] == [number for number, _ in expected]
    assert [point.score for point in found] == pytest.approx([score for _, score in expected], abs=1e-4)


@pytest.mark.real_model
def test_retrieve_with_vectors_then_rerank_with_a_cross_encoder(client, real_by_name, tmp_path):
    """The cross-encoder is random: that its order is the one shown is all that can be said."""
    folder = tiny_models.write_model(tmp_path / "cross", tiny_models.tiny_cross_encoder())
    explicit(client)
    query = next(TextEmbedding(REAL).query_embed(QUERY))
    hits = client.query_points("films", query=query, using="dense", limit=5).points
    candidates = [hit.payload["text"] for hit in hits]
    reranker = TextCrossEncoder("Xenova/ms-marco-MiniLM-L-6-v2", specific_model_path=folder)
    ranked = reranker.rank(QUERY, candidates)
    scores = list(reranker.rerank(QUERY, candidates))
    assert [each.score for each in ranked] == sorted(scores, reverse=True)
    assert candidates[ranked[0].index] == ranked[0].text
    assert candidates[0] == TEXTS[EXPECTED]


def test_sizes_and_lists(installed, client):
    assert client.get_embedding_size(REAL) == 384
    assert client.get_embedding_size(TOKENS) == 384
    assert client.get_embedding_size("colbert-ir/colbertv2.0") == 128
    assert client.list_sparse_models()[BM25]["requires_idf"] is True
    assert REAL in client.list_text_models()
    with pytest.raises(ValueError, match="Unsupported embedding model"):
        client.get_embedding_size("no/such")


def test_options_of_a_document_reach_the_model(installed, client):
    text = "fog fog fog over the town"
    long, short = (
        models.Document(text=text, model=BM25, options={"avg_len": length, "lazy_load": True}) for length in (1, 1000)
    )
    client.upsert("films", [models.PointStruct(id=n, vector={"bm25": each}) for n, each in enumerate([long, short])])
    for number, length in enumerate((1, 1000)):
        vector = client.retrieve("films", [number], with_vectors=True)[0].vector["bm25"]
        expected = next(SparseTextEmbedding(BM25, avg_len=length).embed(text)).as_dict()
        assert dict(zip(vector.indices, vector.values, strict=True)) == pytest.approx(expected)


@pytest.mark.skipif(VERSION >= (1, 19), reason="this qdrant-client has no `add` and `query`")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.real_model
def test_the_old_methods_that_embed(installed, real_by_name):
    client = qdrant_client.QdrantClient(":memory:")
    client.set_model(REAL)
    client.set_sparse_model(BM25)
    assert client.get_fastembed_sparse_vector_params()["fast-sparse-bm25"].modifier == models.Modifier.IDF
    client.add("films", TEXTS, ids=range(len(TEXTS)))
    assert client.query("films", QUERY, limit=1)[0].id == EXPECTED


def test_image_models_are_refused_in_one_clear_line(installed, client):
    model = "Qdrant/clip-ViT-B-32-vision"
    assert client.get_embedding_size(model) == 512
    with pytest.raises(ModelNotFoundError, match=f"^{model} reads images, and fastrank reads text only") as error:
        client.upsert("films", [point(models.Image(image="cat.png", model=model))])
    assert "\n" not in str(error.value)
    assert client.count("films").count == 0


def test_a_model_that_cannot_be_had_offline_is_one_clear_line(installed, client, monkeypatch):
    monkeypatch.setenv("FASTRANK_OFFLINE", "1")
    with pytest.raises(ModelNotCachedError, match=r"^thenlper/gte-base is not in .*fastrank download") as error:
        client.upsert("films", [point(models.Document(text="fog", model="thenlper/gte-base"))])
    assert "\n" not in str(error.value)
    assert client.count("films").count == 0


def test_an_unknown_model_is_one_clear_line(installed, client):
    with pytest.raises(ValueError, match=r"^no/such is not .*supported models") as error:
        client.upsert("films", [point(models.Document(text="fog", model="no/such"))])
    assert "\n" not in str(error.value)
    assert client.count("films").count == 0


@pytest.mark.skipif(VERSION < (1, 20), reason="the local mode of this qdrant-client stores vectors of any length")
def test_a_vector_of_another_length_is_one_clear_line(client):
    with pytest.raises(ValueError, match="expected dim: 384, got 16") as error:
        client.upsert("films", [point([0.5] * 384), point([0.5] * 16)])
    assert "\n" not in str(error.value)
    assert client.count("films").count == 0


def point(vector):
    return models.PointStruct(id=1, vector={"dense": vector})


def test_uninstall_gives_back_what_was_there():
    from qdrant_client import fastembed_common
    from qdrant_client.embed import embedder, model_embedder

    def state():
        names = ("TextEmbedding", "SparseTextEmbedding", "LateInteractionTextEmbedding", "ImageEmbedding")
        found = [getattr(module, name) for module in (fastembed_common, embedder) for name in names]
        return [*found, fastembed_common.FastEmbedMisc.IS_INSTALLED, model_embedder.ModelEmbedder.embed_models_strict]

    before = state()
    qdrant.install()
    qdrant.install()
    assert all(ours is not theirs for ours, theirs in zip(state()[:8], before, strict=False))
    qdrant.uninstall()
    qdrant.uninstall()
    assert state() == before


ABSENT = """
import sys
sys.modules["fastembed"] = None  # as if it were not installed
{line}
import qdrant_client
from qdrant_client import models
client = qdrant_client.QdrantClient(":memory:")
client.create_collection("c", {{}}, sparse_vectors_config={{"bm25": models.SparseVectorParams()}})
point = models.PointStruct(id=1, vector={{"bm25": models.Document(text="bread", model="Qdrant/bm25")}})
client.upload_points("c", [point] * 9{parallel})
print(client.retrieve("c", [1], with_vectors=True)[0].vector["bm25"].values)
"""


@pytest.mark.parametrize(
    ("line", "parallel"),
    [
        ("import fastrank.integrations.qdrant as q; q.install()", ", parallel=2"),
        ("import fastrank.compat.fastembed", ""),
        ("import fastrank", ""),
    ],
)
def test_it_is_fastrank_that_makes_documents_work_where_fastembed_is_absent(line, parallel):
    code = ABSENT.format(line=line, parallel=parallel)
    done = run_python("-c", code)
    if line == "import fastrank":
        assert done.returncode == 1
        assert "fastembed" in done.stderr
    else:
        assert (done.stdout[:4], done.stderr) == ("[1.6", "")


def test_a_missing_qdrant_client_is_an_error_that_names_the_extra(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "qdrant_client"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "qdrant_client", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'fastrank-onnx\[qdrant\]'"):
        qdrant.install()
