"""qdrant-client's own use of FastEmbed."""

from _models import BM25, DENSE, QUERY, TEXTS, show
from qdrant_client import QdrantClient, models

client = QdrantClient(":memory:")
vectors = models.VectorParams(size=client.get_embedding_size(DENSE), distance=models.Distance.COSINE)
client.create_collection(
    "notes",
    vectors_config={"dense": vectors},
    sparse_vectors_config={"bm25": models.SparseVectorParams(modifier=models.Modifier.IDF)},
)
points = [
    models.PointStruct(
        id=number,
        vector={"dense": models.Document(text=text, model=DENSE), "bm25": models.Document(text=text, model=BM25)},
    )
    for number, text in enumerate(TEXTS)
]
client.upload_points("notes", points)
found = {
    name: client.query_points("notes", query=models.Document(text=QUERY, model=model), using=name).points
    for name, model in (("dense", DENSE), ("bm25", BM25))
}
show(**{name: [[point.id, point.score] for point in points] for name, points in found.items()})
