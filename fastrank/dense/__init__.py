"""One vector per text: `TextEmbedding`.

In: texts. Out: float32 vectors of shape (dim,), L2-normalized where the model is trained for it.
"""

from fastrank.dense.text_embedding import TextEmbedding

__all__ = ["TextEmbedding"]
