"""txtai with vectors and scores of fastrank. Tiny models with random weights show the wiring alone."""

import numpy as np
import pytest
from support.hosts import host
from support.processes import run_python
from support.texts import ANSWER, NOTES, QUESTION

host("txtai", torch=True)
from txtai import Embeddings  # noqa: E402
from txtai.pipeline import Reranker  # noqa: E402

from fastrank import LateInteractionTextEmbedding, TextCrossEncoder, TextEmbedding  # noqa: E402
from fastrank.errors import ModelNotFoundError  # noqa: E402
from fastrank.integrations.txtai import METHOD, FastrankSimilarity  # noqa: E402

QUERY = "how fast is the red cat"
TEXTS = ["the cat is red", "one dog", "fast red cats"]


def embeddings(model, **more):
    folder = {"specific_model_path": model["specific_model_path"]}
    return Embeddings({"method": METHOD, "path": model["model_name"], "vectors": folder, "backend": "numpy", **more})


def test_vectors(tiny_dense, tmp_path):
    index = embeddings(tiny_dense, content=True)
    index.index(TEXTS)
    with TextEmbedding(**tiny_dense) as model:
        cosines = np.stack(list(model.passage_embed(TEXTS))) @ next(model.query_embed(QUERY))
    order = np.argsort(-cosines).tolist()
    found = index.search(QUERY, 3)
    assert [row["text"] for row in found] == [TEXTS[number] for number in order]
    assert [row["score"] for row in found] == [pytest.approx(cosines[number], abs=1e-5) for number in order]
    index.save(str(tmp_path / "index"))
    again = Embeddings()
    again.load(str(tmp_path / "index"))
    assert again.search(QUERY, 3) == found
    index.close()
    again.close()


@pytest.mark.parametrize("kind", ["cross-encoder", "late"])
def test_similarity(tiny_dense, tiny_cross_encoder, tiny_late, kind):
    arguments = tiny_late if kind == "late" else tiny_cross_encoder
    similarity = FastrankSimilarity(
        arguments["model_name"],
        late_interaction=kind == "late",
        specific_model_path=arguments["specific_model_path"],
    )
    with (LateInteractionTextEmbedding if kind == "late" else TextCrossEncoder)(**arguments) as model:
        scores = list(model.rerank(QUERY, TEXTS))
    order = sorted(range(3), key=lambda number: -scores[number])
    expected = [(number, pytest.approx(scores[number], abs=1e-5)) for number in order]
    assert similarity(QUERY, TEXTS) == expected
    assert similarity([QUERY, "dog"], TEXTS)[0] == expected
    assert similarity(QUERY, []) == []
    index = embeddings(tiny_dense, content=True)
    index.index(TEXTS)
    found = Reranker(index, similarity)(QUERY, 2)
    assert [row["text"] for row in found] == [TEXTS[number] for number in order[:2]]
    index.close()


def test_mistakes():
    with pytest.raises(ModelNotFoundError, match="acme/none"):
        FastrankSimilarity("acme/none")
    with pytest.raises(ImportError, match="Unable to resolve vectors backend"):
        Embeddings({"method": METHOD, "path": "acme/none"})


@pytest.mark.real_model
def test_the_answer_is_found_first(real):
    index = embeddings(real)
    index.index(NOTES)
    assert NOTES[index.search(QUESTION, 1)[0][0]] == ANSWER
    assert FastrankSimilarity(**{"path": real["model_name"], **{k: v for k, v in real.items() if k != "model_name"}})(
        QUESTION, NOTES
    )[0][0] == NOTES.index(ANSWER)


def test_without_the_host():
    done = run_python("-c", "import sys; sys.modules['txtai'] = None; import fastrank.integrations.txtai")
    assert done.stderr.endswith("(in a checkout: pip install '.[txtai]')\n")
