"""fastembed-haystack's embedders and ranker."""

from _models import DENSE, QUERY, SCORER, TEXTS, show
from haystack import Document
from haystack_integrations.components.embedders.fastembed import (
    FastembedDocumentEmbedder,
    FastembedSparseDocumentEmbedder,
    FastembedSparseTextEmbedder,
    FastembedTextEmbedder,
)
from haystack_integrations.components.rankers.fastembed import FastembedRanker

documents = [Document(content=text) for text in TEXTS]


def ready(component):
    component.warm_up()
    return component


dense = ready(FastembedDocumentEmbedder(model=DENSE, progress_bar=False)).run(documents)["documents"]
sparse = ready(FastembedSparseDocumentEmbedder(model="Qdrant/bm25", progress_bar=False)).run(documents)["documents"]
ranked = ready(FastembedRanker(model_name=SCORER, top_k=2)).run(query=QUERY, documents=documents)["documents"]
show(
    dense=[each.embedding for each in dense],
    query=ready(FastembedTextEmbedder(model=DENSE)).run(QUERY)["embedding"],
    sparse=[each.sparse_embedding for each in sparse],
    sparse_query=ready(FastembedSparseTextEmbedder(model="Qdrant/bm25")).run(QUERY)["sparse_embedding"],
    ranked=[each.content for each in ranked],
)
