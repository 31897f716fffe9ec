"""Several embeddings of a text in one run, for hybrid search: `HybridTextEmbedding`.

In: texts. Out: for each a dense vector, a sparse vector and a vector for each token, whichever are wanted.
"""

from fastrank.hybrid.embedding import HybridEmbedding, hybrid_scores
from fastrank.hybrid.hybrid_text_embedding import HybridTextEmbedding

__all__ = ["HybridEmbedding", "HybridTextEmbedding", "hybrid_scores"]
