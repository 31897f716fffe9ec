"""A program written for FastEmbed: vectors of three kinds of a few notes, and which of them answers a question."""

import json
import sys

import numpy as np
from fastembed import LateInteractionTextEmbedding, SparseEmbedding, SparseTextEmbedding, TextEmbedding
from fastembed.postprocess import Muvera

NOTES = [
    "Tomato seedlings go outdoors when nights stay above ten degrees.",
    "The night train to Lisbon leaves from platform four.",
    "Sourdough needs a warm kitchen and a day of patience.",
    "Replace the chain of a bicycle before it wears out the sprockets. " * 30,
]
QUESTION = "when can I plant vegetables outside?"

model = TextEmbedding(
    model_name="sentence-transformers/all-MiniLM-L6-v2", threads=1, lazy_load=True, specific_model_path=sys.argv[1]
)
dense = list(model.embed(NOTES, batch_size=2, parallel=None))
query = next(model.query_embed(QUESTION))
passages = list(model.passage_embed(NOTES))

bm25 = SparseTextEmbedding("Qdrant/bm25", specific_model_path=sys.argv[2], avg_len=12.0)
sparse = list(bm25.embed(iter(NOTES)))
words = next(iter(bm25.query_embed(QUESTION)))
assert isinstance(words, SparseEmbedding)

colbert = LateInteractionTextEmbedding("colbert-ir/colbertv2.0", specific_model_path=sys.argv[3])
tokens = [*colbert.embed(NOTES), *colbert.query_embed(QUESTION)]
muvera = Muvera.from_multivector_model(colbert, k_sim=3, dim_proj=8, r_reps=4)

print(
    json.dumps(
        {
            "best": int(np.argmax(np.stack(dense) @ query)),
            "dense": np.stack([*dense, *passages, query]).tolist(),
            "dtype": str(dense[0].dtype),
            "size": [model.embedding_size, TextEmbedding.get_embedding_size("Sentence-Transformers/all-MiniLM-L6-v2")],
            "late": [vectors.tolist() for vectors in tokens],
            "muvera": [muvera.process_document(tokens[0]).tolist(), muvera.process_query(tokens[-1]).tolist()],
            "tokens": [colbert.token_count(NOTES, is_doc=True), colbert.embedding_size],
            "counts": [model.token_count(NOTES), bm25.token_count(NOTES)],
            "sparse": [sorted(vector.as_dict().items()) for vector in [*sparse, words]],
            "object": sorted(sparse[0].as_object()),
        }
    )
)
