"""A program written for FastEmbed: find with vectors, then let a cross-encoder put the best first."""

import json
import sys

import numpy as np
from fastembed import TextEmbedding
from fastembed.rerank.cross_encoder import TextCrossEncoder

PLOTS = [
    "A gardener on a space station hides the last seed of an oak.",
    "Two brothers rob a bank to pay for a violin.",
    "A robot cleans an empty planet and falls in love.",
    "A baker solves the murder of a miller.",
]
QUERY = "machines with feelings"

encoder = TextEmbedding("sentence-transformers/all-MiniLM-L6-v2", specific_model_path=sys.argv[1])
vectors = np.stack(list(encoder.embed(PLOTS)))
found = np.argsort(-(vectors @ next(iter(encoder.query_embed(QUERY)))))[:3]
candidates = [PLOTS[position] for position in found]

reranker = TextCrossEncoder(model_name="Xenova/ms-marco-MiniLM-L-6-v2", specific_model_path=sys.argv[3])
scores = list(reranker.rerank(QUERY, candidates, batch_size=2))
ranked = sorted(zip(candidates, scores, strict=True), key=lambda pair: pair[1], reverse=True)

print(
    json.dumps(
        {
            "found": found.tolist(),
            "scores": scores,
            "pairs": list(reranker.rerank_pairs([(QUERY, plot) for plot in candidates])),
            "ranked": [plot for plot, _ in ranked],
        }
    )
)
