"""langchain-qdrant's FastEmbedSparse."""

from _models import BM25, QUERY, TEXTS, show
from langchain_qdrant import FastEmbedSparse

sparse = FastEmbedSparse(model_name=BM25, batch_size=2)
show(documents=sparse.embed_documents(TEXTS), query=sparse.embed_query(QUERY))
