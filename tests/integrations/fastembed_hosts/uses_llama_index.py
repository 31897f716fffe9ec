"""LlamaIndex's FastEmbedEmbedding."""

from _models import DENSE, QUERY, TEXTS, show
from llama_index.core import VectorStoreIndex
from llama_index.core.schema import TextNode
from llama_index.embeddings.fastembed import FastEmbedEmbedding

embedding = FastEmbedEmbedding(model_name=DENSE, doc_embed_type="passage")
index = VectorStoreIndex([TextNode(text=text) for text in TEXTS], embed_model=embedding)
show(
    texts=embedding.get_text_embedding_batch(TEXTS),
    query=embedding.get_query_embedding(QUERY),
    found=[node.text for node in index.as_retriever(similarity_top_k=3).retrieve(QUERY)],
)
