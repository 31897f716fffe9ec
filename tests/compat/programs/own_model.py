"""A program written for FastEmbed: a model that FastEmbed does not know, and processes of the program's own."""

import json
import multiprocessing
import sys

import numpy as np
from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType
from fastembed.sparse.bm25 import Bm25

TEXTS = ["red cats", "blue dogs", "one model of two"] * 200


def length(text):
    return len(text)


if __name__ == "__main__":
    TextEmbedding.add_custom_model(
        model="acme/own",
        pooling=PoolingType.MEAN,
        normalization=True,
        sources=ModelSource(hf="acme/own"),
        dim=16,
        model_file="onnx/model.onnx",
    )
    own = TextEmbedding("acme/own", specific_model_path=sys.argv[3])
    bm25 = Bm25("Qdrant/bm25", k=1.0, avg_len=3.0, specific_model_path=sys.argv[2])
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        lengths = pool.map(length, TEXTS[:3])
    print(
        json.dumps(
            {
                "dense": np.stack(list(own.embed([*TEXTS[:3], "cats " * 100]))).tolist(),
                "tokens": own.token_count("cats " * 100),
                "sparse": [sorted(v.as_dict().items()) for v in bm25.embed(TEXTS, parallel=2, batch_size=64)],
                "lengths": lengths,
                "known": any(row["model"] == "acme/own" for row in TextEmbedding.list_supported_models()),
            }
        )
    )
