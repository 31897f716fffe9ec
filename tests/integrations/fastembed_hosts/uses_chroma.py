"""Chroma's FastembedSparseEmbeddingFunction, which gives arguments by position, some of them in another's place."""

from _models import BM25, QUERY, TEXTS, show
from chromadb.utils.embedding_functions import FastembedSparseEmbeddingFunction

function = FastembedSparseEmbeddingFunction(model_name=BM25)
queries = FastembedSparseEmbeddingFunction(model_name=BM25, task="query")
show(documents=function(TEXTS), query=queries([QUERY]))
