"""mem0's FastEmbedEmbedding."""

from _models import DENSE, QUERY, show
from mem0.configs.embeddings.base import BaseEmbedderConfig
from mem0.embeddings.fastembed import FastEmbedEmbedding

embedding = FastEmbedEmbedding(BaseEmbedderConfig(model=DENSE))
show(one=embedding.embed(QUERY), size=embedding.config.embedding_dims)
