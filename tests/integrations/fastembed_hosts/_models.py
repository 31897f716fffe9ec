"""Models of one's own, which every program here uses, by FastEmbed's names."""

import json
import sys

import numpy as np
from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType
from fastembed.rerank.cross_encoder import TextCrossEncoder

DENSE, SCORER, BM25 = "acme/dense", "acme/scorer", "Qdrant/bm25"
TEXTS = ["the cat is red", "one dog", "fast red cats"]
QUERY = "how fast is the red cat"

TextEmbedding.add_custom_model(DENSE, PoolingType.MEAN, True, ModelSource(hf="intfloat/multilingual-e5-small"), dim=384)
TextCrossEncoder.add_custom_model(SCORER, ModelSource(hf="Xenova/ms-marco-MiniLM-L-4-v2"))


def show(**results):
    """Print results as JSON, sparse vectors as sorted pairs."""
    json.dump(results, sys.stdout, default=plain)


def plain(value):
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    return sorted(zip(map(int, value.indices), map(float, value.values), strict=True))
