"""Official clients against a live server: each case is what a user of that client writes, then a look at the answer.

    python tests/server/clients/cases.py URL [name ...]

It runs in any environment; cases whose client is not installed are skipped. Clients that exclude each other go into
environments of their own. The server has rerankers and embedding models under hosted names (`--alias-hosted`).
"""

import asyncio
import contextlib
import importlib
import os
import sys
import traceback
import warnings

QUERY = "capital of France"
DOCUMENTS = ["BM25 ranks documents", "Paris is the capital of France", "dogs bark at night"]
RERANK, EMBED = "rerank-v3.5", "embed-english-v3.0"
KEY = "any"
CASES = {}


def case(*modules):
    """A case that needs these modules."""

    def add(function):
        CASES[function.__name__] = (modules, function)
        return function

    return add


def ranked(found, most=3):
    """Check (index, score) pairs: sorted, distinct, in [0, 1]."""
    found = [(int(index), float(score)) for index, score in found]
    assert len(found) == most, found
    assert len({index for index, _ in found}) == most, found
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True), found
    assert all(0 <= score <= 1 for _, score in found), found


def vectors(found, count=3, size=None):
    """Check vectors: as many as asked for, all of one length."""
    found = [list(vector) for vector in found]
    assert len(found) == count, len(found)
    lengths = {len(vector) for vector in found}
    assert len(lengths) == 1, lengths
    assert lengths != {0}
    assert size is None or lengths == {size}, lengths
    assert all(abs(float(value)) < 1e6 for vector in found for value in vector)


def with_voyage(client, url):
    """The client of a host's class, pointed at the server."""
    client._params["base_url"] = f"{url}/v1"


# -- cohere -----------------------------------------------------------------------------------------------------------


@case("cohere")
def cohere_v1_rerank(url):
    import cohere

    client = cohere.Client(KEY, base_url=url)
    ranked(
        [
            (r.index, r.relevance_score)
            for r in client.rerank(query=QUERY, documents=DOCUMENTS, model=RERANK, top_n=2).results
        ],
        2,
    )
    found = client.rerank(query=QUERY, documents=[{"text": d} for d in DOCUMENTS], model=RERANK, return_documents=True)
    assert {r.document.text for r in found.results} == set(DOCUMENTS)


@case("cohere")
def cohere_v2_rerank(url):
    import cohere

    client = cohere.ClientV2(KEY, base_url=url)
    ranked(
        [(r.index, r.relevance_score) for r in client.rerank(query=QUERY, documents=DOCUMENTS, model=RERANK).results]
    )


@case("cohere")
def cohere_async_rerank(url):
    import cohere

    async def ask():
        client = cohere.AsyncClientV2(KEY, base_url=url)
        return await client.rerank(query=QUERY, documents=DOCUMENTS, model=RERANK)

    ranked([(r.index, r.relevance_score) for r in asyncio.run(ask()).results])


@case("cohere")
def cohere_embed(url):
    import cohere

    vectors(
        cohere.Client(KEY, base_url=url).embed(texts=DOCUMENTS, model=EMBED, input_type="search_document").embeddings
    )
    client = cohere.ClientV2(KEY, base_url=url)
    texts = [f"text {n}" for n in range(200)]
    found = client.embed(texts=texts, model=EMBED, input_type="search_document", embedding_types=["float"])
    vectors(found.embeddings.float_, 200)
    found = client.embed(texts=DOCUMENTS, model=EMBED, input_type="search_query", embedding_types=["int8", "ubinary"])
    vectors(found.embeddings.int8)
    vectors(found.embeddings.ubinary)


@case("cohere")
def cohere_errors(url):
    import cohere
    from cohere.errors import NotFoundError

    with contextlib.suppress(NotFoundError):
        cohere.ClientV2(KEY, base_url=url).rerank(query=QUERY, documents=DOCUMENTS, model="no-such-model")
        raise AssertionError("an unknown model must be an error")


# -- voyage, openai, mistral, ollama, hugging face --------------------------------------------------------------------


@case("voyageai")
def voyage(url):
    import voyageai

    client = voyageai.Client(api_key=KEY, base_url=f"{url}/v1")
    found = client.rerank(QUERY, DOCUMENTS, model="rerank-2.5", top_k=2)
    ranked([(r.index, r.relevance_score) for r in found.results], 2)
    assert {r.document for r in found.results} <= set(DOCUMENTS)
    vectors(client.embed(DOCUMENTS, model="voyage-3", input_type="document").embeddings)
    vectors(client.embed(DOCUMENTS, model="voyage-3", output_dtype="int8", output_dimension=8).embeddings, size=8)
    vectors(client.embed(DOCUMENTS, model="voyage-3-lite", output_dimension=512).embeddings, size=512)


@case("voyageai")
def voyage_async(url):
    import voyageai

    async def ask():
        client = voyageai.AsyncClient(api_key=KEY, base_url=f"{url}/v1")
        return await client.rerank(QUERY, DOCUMENTS, model="rerank-2.5")

    ranked([(r.index, r.relevance_score) for r in asyncio.run(ask()).results])


@case("openai")
def openai_embeddings(url):
    import openai

    client = openai.OpenAI(api_key=KEY, base_url=f"{url}/v1")
    model = "text-embedding-3-small"
    encoded = client.embeddings.create(model=model, input=DOCUMENTS).data
    vectors([each.embedding for each in encoded])
    plain = client.embeddings.create(model=model, input=DOCUMENTS, encoding_format="float").data
    assert all(
        abs(a - b) < 1e-6
        for x, y in zip(encoded, plain, strict=True)
        for a, b in zip(x.embedding, y.embedding, strict=True)
    )
    vectors([each.embedding for each in client.embeddings.create(model=model, input="x", dimensions=4).data], 1, 4)
    assert model in {each.id for each in client.models.list().data}
    raw = client.post("/rerank", body={"model": RERANK, "query": QUERY, "documents": DOCUMENTS}, cast_to=object)
    ranked([(each["index"], each["relevance_score"]) for each in raw["results"]])


@case("openai")
def openai_async_and_errors(url):
    import openai

    async def ask():
        async with openai.AsyncOpenAI(api_key=KEY, base_url=f"{url}/v1") as client:
            return await client.embeddings.create(model="text-embedding-3-small", input=DOCUMENTS)

    vectors([each.embedding for each in asyncio.run(ask()).data])
    with contextlib.suppress(openai.NotFoundError):
        openai.OpenAI(api_key=KEY, base_url=f"{url}/v1").embeddings.create(model="no-such-model", input="x")
        raise AssertionError("an unknown model must be an error")


@case("mistralai")
def mistral(url):
    try:
        from mistralai import Mistral
    except ImportError:
        from mistralai.client import Mistral

    found = Mistral(api_key=KEY, server_url=url).embeddings.create(model="mistral-embed", inputs=DOCUMENTS)
    vectors([each.embedding for each in found.data])


@case("ollama")
def ollama(url):
    import ollama

    client = ollama.Client(host=url)
    vectors(client.embed(model="nomic-embed-text", input=DOCUMENTS).embeddings)
    vectors([client.embeddings(model="nomic-embed-text", prompt="x").embedding], 1)
    assert client.list().models
    assert client.show("nomic-embed-text")


@case("huggingface_hub")
def hugging_face(url):
    from huggingface_hub import InferenceClient

    client = InferenceClient(model=url)
    vectors(client.feature_extraction("x", normalize=True), 1)
    scores = client.sentence_similarity(QUERY, other_sentences=DOCUMENTS)
    assert len(scores) == 3
    vectors(InferenceClient(model=f"{url}/embed").feature_extraction(DOCUMENTS, truncate=True))


# -- litellm ----------------------------------------------------------------------------------------------------------


@case("litellm")
def litellm_rerank(url):
    import litellm

    places = {
        f"cohere/{RERANK}": "/v2/rerank",
        "jina_ai/jina-reranker-v2-base-multilingual": "/v1/rerank",
        f"infinity/{RERANK}": "",
        f"hosted_vllm/{RERANK}": "",
        "voyage/rerank-2.5": "/v1",
        f"huggingface/{RERANK}": "/rerank",
        f"nvidia_nim/{RERANK}": "",
    }
    for model, path in places.items():
        found = litellm.rerank(model=model, query=QUERY, documents=DOCUMENTS, top_n=2, api_base=url + path, api_key=KEY)
        scores = [(each["index"], each["relevance_score"]) for each in found.results]
        if model.startswith("nvidia_nim"):  # raw scores
            assert len(scores) == 2, model
        else:
            ranked(scores, 2)


@case("litellm")
def litellm_embedding(url):
    import litellm

    places = {
        "openai/text-embedding-3-small": "/v1",
        "hosted_vllm/text-embedding-3-small": "/v1",
        "jina_ai/jina-embeddings-v3": "/v1",
        "voyage/voyage-3": "/v1",
        f"infinity/{EMBED}": "",
        "ollama/nomic-embed-text": "",
        f"cohere/{EMBED}": "/v2/embed",
    }
    for model, path in places.items():
        found = litellm.embedding(model=model, input=DOCUMENTS, api_base=url + path, api_key=KEY)
        vectors([each["embedding"] for each in found.data])
    found = litellm.embedding(
        model=f"huggingface/{EMBED}",
        input=DOCUMENTS,
        api_base=f"{url}/embed",
        api_key=KEY,
        input_type="feature-extraction",
    )
    vectors([each["embedding"] for each in found.data])


# -- langchain --------------------------------------------------------------------------------------------------------


@case("langchain_cohere")
def langchain_cohere(url):
    from langchain_cohere import CohereEmbeddings, CohereRerank

    found = CohereRerank(model=RERANK, cohere_api_key=KEY, base_url=url, top_n=2).rerank(DOCUMENTS, QUERY)
    ranked([(each["index"], each["relevance_score"]) for each in found], 2)
    model = CohereEmbeddings(model=EMBED, cohere_api_key=KEY, base_url=url)
    vectors(model.embed_documents(DOCUMENTS))
    vectors([model.embed_query(QUERY)], 1)


@case("langchain_voyageai")
def langchain_voyage(url):
    from langchain_core.documents import Document
    from langchain_voyageai import VoyageAIEmbeddings, VoyageAIRerank

    reranker = VoyageAIRerank(model="rerank-2.5", api_key=KEY, top_k=2, base_url=f"{url}/v1")
    found = reranker.compress_documents([Document(page_content=text) for text in DOCUMENTS], QUERY)
    assert len(found) == 2
    _redirect(url)
    model = VoyageAIEmbeddings(model="voyage-3", api_key=KEY, batch_size=2)
    vectors(model.embed_documents(DOCUMENTS))


@case("langchain_openai")
def langchain_openai(url):
    from langchain_openai import OpenAIEmbeddings

    options = {"model": "text-embedding-3-small", "api_key": KEY, "base_url": f"{url}/v1"}
    model = OpenAIEmbeddings(**options, check_embedding_ctx_length=False)
    vectors(model.embed_documents(DOCUMENTS))
    vectors([asyncio.run(model.aembed_query(QUERY))], 1)


@case("langchain_huggingface")
def langchain_hugging_face(url):
    from huggingface_hub import InferenceClient
    from langchain_huggingface import HuggingFaceEndpointEmbeddings

    model = HuggingFaceEndpointEmbeddings(model="any/name", huggingfacehub_api_token=KEY)
    model.client = InferenceClient(model=url)
    vectors(model.embed_documents(DOCUMENTS))


@case("langchain_ollama")
def langchain_ollama(url):
    from langchain_ollama import OllamaEmbeddings

    model = OllamaEmbeddings(model="nomic-embed-text", base_url=url)
    vectors(model.embed_documents(DOCUMENTS))


@case("langchain_community")
def langchain_community_jina(url):
    _redirect(url)
    from langchain_community.document_compressors import JinaRerank
    from langchain_community.embeddings import JinaEmbeddings

    found = JinaRerank(model="jina-reranker-v2-base-multilingual", jina_api_key=KEY, top_n=2).rerank(DOCUMENTS, QUERY)
    ranked([(each["index"], each["relevance_score"]) for each in found], 2)
    model = JinaEmbeddings(model_name="jina-embeddings-v3", jina_api_key=KEY)
    vectors(model.embed_documents(DOCUMENTS))


@case("langchain_community", "infinity_client")
def langchain_community_infinity(url):
    import infinity_client
    from langchain_community.document_compressors.infinity_rerank import InfinityRerank

    reranker = InfinityRerank(client=infinity_client.Client(base_url=url), model=RERANK)
    ranked([(each["index"], each["relevance_score"]) for each in reranker.rerank(DOCUMENTS, QUERY)])


@case("langchain_community")
def langchain_community_embeddings(url):
    from langchain_community.embeddings import InfinityEmbeddings, VoyageEmbeddings

    vectors(InfinityEmbeddings(model=EMBED, infinity_api_url=url).embed_documents(DOCUMENTS))
    model = VoyageEmbeddings(model="voyage-3", voyage_api_key=KEY, voyage_api_base=f"{url}/v1/embeddings", batch_size=2)
    vectors(model.embed_documents(DOCUMENTS))


@case("langchain_nvidia_ai_endpoints")
def langchain_nvidia(url):
    from langchain_core.documents import Document
    from langchain_nvidia_ai_endpoints import NVIDIARerank

    reranker = NVIDIARerank(model=RERANK, base_url=f"{url}/v1", api_key=KEY, top_n=2)
    found = reranker.compress_documents([Document(page_content=text) for text in DOCUMENTS], QUERY)
    assert len(found) == 2


# -- llama_index ------------------------------------------------------------------------------------------------------


def _nodes():
    from llama_index.core.schema import NodeWithScore, TextNode

    return [NodeWithScore(node=TextNode(text=text)) for text in DOCUMENTS]


@case("llama_index.postprocessor.tei_rerank")
def llama_index_tei_rerank(url):
    from llama_index.postprocessor.tei_rerank import TextEmbeddingInference

    found = TextEmbeddingInference(model_name=RERANK, base_url=url, top_n=2).postprocess_nodes(
        _nodes(), query_str=QUERY
    )
    assert len(found) == 2


@case("llama_index.postprocessor.cohere_rerank")
def llama_index_cohere_rerank(url):
    from llama_index.postprocessor.cohere_rerank import CohereRerank

    found = CohereRerank(model=RERANK, api_key=KEY, base_url=url, top_n=2).postprocess_nodes(_nodes(), query_str=QUERY)
    assert len(found) == 2


@case("llama_index.postprocessor.jinaai_rerank")
def llama_index_jina_rerank(url):
    from llama_index.postprocessor.jinaai_rerank import JinaRerank

    model = JinaRerank(model="jina-reranker-v2-base-multilingual", api_key=KEY, base_url=f"{url}/v1", top_n=2)
    assert len(model.postprocess_nodes(_nodes(), query_str=QUERY)) == 2


@case("llama_index.postprocessor.voyageai_rerank")
def llama_index_voyage_rerank(url):
    _redirect(url)
    from llama_index.postprocessor.voyageai_rerank import VoyageAIRerank

    model = VoyageAIRerank(model="rerank-2.5", api_key=KEY, top_n=2)
    assert len(model.postprocess_nodes(_nodes(), query_str=QUERY)) == 2


@case("llama_index.embeddings.text_embeddings_inference")
def llama_index_tei_embedding(url):
    from llama_index.embeddings.text_embeddings_inference import TextEmbeddingsInference

    vectors(TextEmbeddingsInference(model_name=EMBED, base_url=url).get_text_embedding_batch(DOCUMENTS))


@case("llama_index.embeddings.openai_like")
def llama_index_openai_like(url):
    from llama_index.embeddings.openai_like import OpenAILikeEmbedding

    model = OpenAILikeEmbedding(model_name="text-embedding-3-small", api_base=f"{url}/v1", api_key=KEY)
    vectors(model.get_text_embedding_batch(DOCUMENTS))


@case("llama_index.embeddings.cohere")
def llama_index_cohere_embedding(url):
    from llama_index.embeddings.cohere import CohereEmbedding

    vectors(CohereEmbedding(model_name=EMBED, api_key=KEY, base_url=url).get_text_embedding_batch(DOCUMENTS))


@case("llama_index.embeddings.ollama")
def llama_index_ollama_embedding(url):
    from llama_index.embeddings.ollama import OllamaEmbedding

    vectors(OllamaEmbedding(model_name="nomic-embed-text", base_url=url).get_text_embedding_batch(DOCUMENTS))


@case("llama_index.embeddings.jinaai")
def llama_index_jina_embedding(url):
    _redirect(url)
    from llama_index.embeddings.jinaai import JinaEmbedding

    model = JinaEmbedding(model="jina-embeddings-v3", api_key=KEY)
    vectors(model.get_text_embedding_batch(DOCUMENTS))


# -- haystack ---------------------------------------------------------------------------------------------------------


def _haystack_documents():
    from haystack import Document

    return [Document(content=text) for text in DOCUMENTS]


def _secret():
    from haystack.utils import Secret

    return Secret.from_token(KEY)


@case("haystack_integrations.components.rankers.cohere")
def haystack_cohere(url):
    from haystack_integrations.components.rankers.cohere import CohereRanker

    ranker = CohereRanker(model=RERANK, api_key=_secret(), api_base_url=url, top_k=2)
    assert len(ranker.run(query=QUERY, documents=_haystack_documents())["documents"]) == 2


@case("haystack_integrations.components.rankers.jina")
def haystack_jina(url):
    from haystack_integrations.components.rankers.jina import JinaRanker

    options = {"model": "jina-reranker-v2-base-multilingual", "api_key": _secret(), "top_k": 2}
    ranker = JinaRanker(**options, base_url=f"{url}/v1/rerank")
    assert len(ranker.run(query=QUERY, documents=_haystack_documents())["documents"]) == 2


@case("haystack_integrations.components.rankers.voyage")
def haystack_voyage(url):
    _redirect(url)
    from haystack_integrations.components.rankers.voyage import VoyageRanker

    ranker = VoyageRanker(model="rerank-2.5", api_key=_secret(), top_k=2)
    assert len(ranker.run(query=QUERY, documents=_haystack_documents())["documents"]) == 2


@case("haystack")
def haystack_openai(url):
    from haystack.components.embedders import OpenAIDocumentEmbedder, OpenAITextEmbedder

    options = {"model": "text-embedding-3-small", "api_key": _secret(), "api_base_url": f"{url}/v1"}
    vectors([OpenAITextEmbedder(**options).run(text=QUERY)["embedding"]], 1)
    found = OpenAIDocumentEmbedder(**options, progress_bar=False).run(documents=_haystack_documents())["documents"]
    vectors([each.embedding for each in found])


# -- vector stores ----------------------------------------------------------------------------------------------------


@case("lancedb.rerankers", "cohere")
def lancedb_cohere(url):
    _redirect(url)
    import lancedb.rerankers

    _lancedb(lancedb.rerankers.CohereReranker(model_name=RERANK, api_key=KEY))


@case("lancedb.rerankers")
def lancedb_jina(url):
    _redirect(url)
    import lancedb.rerankers

    _lancedb(lancedb.rerankers.JinaReranker(model_name="jina-reranker-v2-base-multilingual", api_key=KEY))


@case("lancedb.rerankers", "voyageai")
def lancedb_voyage(url):
    _redirect(url)
    import lancedb.rerankers

    _lancedb(lancedb.rerankers.VoyageAIReranker(model_name="rerank-2.5", api_key=KEY))


def _lancedb(reranker):
    import pyarrow as pa

    rows = pa.table({"text": DOCUMENTS, "_distance": pa.array([0.1, 0.2, 0.3], pa.float32()), "_rowid": [0, 1, 2]})
    found = reranker.rerank_vector(QUERY, rows)
    assert set(found["text"].to_pylist()) == set(DOCUMENTS)
    scores = found["_relevance_score"].to_pylist()
    assert scores == sorted(scores, reverse=True)


def _milvus(name, *path):
    for module in ("milvus_model", "pymilvus.model"):
        with contextlib.suppress(ImportError):
            return getattr(importlib.import_module(".".join([module, *path])), name)
    raise ImportError(name)


@case("milvus_model|pymilvus.model")
def milvus_jina(url):
    _redirect(url)
    rerank = _milvus("JinaRerankFunction", "reranker")("jina-reranker-v2-base-multilingual", api_key=KEY)
    ranked([(each.index, each.score) for each in rerank(QUERY, DOCUMENTS, top_k=2)], 2)
    vectors(_milvus("JinaEmbeddingFunction", "dense")("jina-embeddings-v3", api_key=KEY).encode_documents(DOCUMENTS))


@case("milvus_model|pymilvus.model", "voyageai")
def milvus_voyage(url):
    _redirect(url)
    rerank = _milvus("VoyageRerankFunction", "reranker")("rerank-2", api_key=KEY)
    ranked([(each.index, each.score) for each in rerank(QUERY, DOCUMENTS, top_k=2)], 2)
    vectors(
        _milvus("VoyageEmbeddingFunction", "dense")("voyage-3-lite", api_key=KEY).encode_documents(DOCUMENTS), size=512
    )


@case("milvus_model|pymilvus.model", "cohere<5.16")
def milvus_cohere(url):
    _redirect(url)
    rerank = _milvus("CohereRerankFunction", "reranker")(RERANK, api_key=KEY)
    ranked([(each.index, each.score) for each in rerank(QUERY, DOCUMENTS, top_k=2)], 2)


@case("chromadb")
def chroma(url):
    _redirect(url)
    from chromadb.utils import embedding_functions as functions

    os.environ.update(CHROMA_OPENAI_API_KEY=KEY, CHROMA_JINA_API_KEY=KEY, CHROMA_VOYAGE_API_KEY=KEY)
    os.environ.update(
        JINA_API_KEY=KEY, VOYAGE_API_KEY=KEY, OPENAI_API_KEY=KEY, CHROMA_COHERE_API_KEY=KEY, COHERE_API_KEY=KEY
    )
    vectors(functions.HuggingFaceEmbeddingServer(url=f"{url}/embed")(DOCUMENTS))
    made = [
        ("openai", functions.OpenAIEmbeddingFunction, {"api_base": f"{url}/v1", "model_name": "text-embedding-3-small"})
    ]
    made += [("ollama", functions.OllamaEmbeddingFunction, {"url": url, "model_name": "nomic-embed-text"})]
    made += [("httpx", functions.JinaEmbeddingFunction, {"model_name": "jina-embeddings-v3"})]
    made += [("cohere", functions.CohereEmbeddingFunction, {"model_name": EMBED})]
    made += [("voyageai", functions.VoyageAIEmbeddingFunction, {"model_name": "voyage-3"})]
    for module, function, options in made:
        if _has(module):
            vectors(function(**options)(DOCUMENTS))


@case("rerankers.models.api_rankers")
def rerankers_api(url):
    from rerankers.models.api_rankers import APIRanker

    places = {"cohere": "/v1/rerank", "jina": "/v1/rerank", "voyage": "/v1/rerank", "mixedbread.ai": "/v1/reranking"}
    places["text-embeddings-inference"] = "/rerank"
    for provider, path in places.items():
        ranker = APIRanker(RERANK, KEY, api_provider=provider, url=url + path, verbose=0)
        ranked([(each.document.doc_id, each.score) for each in ranker.rank(query=QUERY, docs=DOCUMENTS).results])


@case("infinity_client")
def infinity(url):
    import infinity_client
    from infinity_client.api.default import rerank
    from infinity_client.models import RerankInput

    body = RerankInput(query=QUERY, documents=DOCUMENTS, return_documents=True, model=RERANK)
    found = rerank.sync(client=infinity_client.Client(base_url=url), body=body)
    ranked([(each.index, each.relevance_score) for each in found.results])


# -- running them -----------------------------------------------------------------------------------------------------


def _redirect(url):
    import fastrank.integrations

    fastrank.integrations.redirect(url)


def _has(requirement):
    """Whether a module can be imported, one of "a|b", or a package below a version ("cohere<5.16")."""
    if "|" in requirement:
        return any(map(_has, requirement.split("|")))
    name, _, below = requirement.partition("<")
    try:
        importlib.import_module(name)
    except Exception:  # noqa: BLE001 - whatever a client's own imports raise
        return False
    if not below:
        return True
    from importlib.metadata import version

    return [int(part) for part in version(name).split(".")[:2]] < [int(part) for part in below.split(".")]


def run(name, url):
    """What became of a case: "ok", "skipped" or what went wrong."""
    modules, function = CASES[name]
    os.environ.update(
        CO_API_URL=url, JINA_API_KEY=KEY, VOYAGE_API_KEY=KEY, NVIDIA_API_KEY=KEY, LITELLM_LOCAL_MODEL_COST_MAP="True"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not all(map(_has, modules)):
            return "skipped"
        try:
            function(url)
        except Exception:  # noqa: BLE001 - it is told
            return traceback.format_exc(limit=-4)
    return "ok"


def main():
    """Run the cases; the number of those that failed."""
    url, *names = sys.argv[1:]
    failed = 0
    for name in names or CASES:
        found = run(name, url)
        failed += found not in ("ok", "skipped")
        sys.stdout.write(f"{name}: {found}\n")
        sys.stdout.flush()
    return failed


if __name__ == "__main__":
    sys.exit(main())
