"""What makes up MaxSim: tokens, where they stand, and which meets which best."""

import json
import shutil
import string
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import support
from conftest import REAL
from support.tiny_models import DIM

from fastrank import LateInteractionTextEmbedding, ModelSource
from fastrank.late_interaction.explanation import Explanation, Token
from fastrank.maxsim import maxsim

COLBERT = {
    "query_prefix_token": "[unused0]",
    "document_prefix_token": "[unused1]",
    "query_length": 8,
    "skiplist": string.punctuation,
    "projection": False,
}
FOLDERS = [*sorted((support.FIXTURES / "late_interaction").iterdir()), support.FIXTURES / "folders" / "multi_vector"]
QUERY, TEXT = "Red cat?", "  A fast DOG, the red cats!"


def model(folder, name="acme/explained", **settings):
    LateInteractionTextEmbedding.add_custom_model(name, ModelSource(hf=name), DIM, **settings)
    return LateInteractionTextEmbedding(name, specific_model_path=folder)


@pytest.fixture
def colbert(tiny):
    return model(tiny, **COLBERT)


def check(late, query=QUERY, text=TEXT):
    """What must hold for any model."""
    found = late.explain(query, text)
    asked, read = next(late.query_embed(query)), next(late.embed(text))
    assert found.similarities.dtype == np.float32
    np.testing.assert_array_equal(found.similarities, asked @ read.T)
    assert found.score == pytest.approx(next(late.rerank(query, [text])), rel=1e-5)
    assert found.score == pytest.approx(float(maxsim(asked, [read])[0]), rel=1e-5)
    for tokens, whole in ((found.query_tokens, query), (found.document_tokens, text)):
        for token in tokens:
            assert (token.start is None) == (token.stop is None)
            if token.start is not None:
                assert token.text == whole[token.start : token.stop] != ""
    for row, match in enumerate(found.matches):
        assert match.query == row
        assert match.document == found.similarities[row].argmax()
        assert match.similarity == found.similarities[row].max()
    return found


def test_tokens_stand_where_they_stand(colbert):
    found = check(colbert)
    assert [token.text for token in found.query_tokens] == [
        *("[CLS]", "[unused0]", "Red", "cat", "?", "[SEP]", "[MASK]", "[MASK]")
    ]
    assert [token.text for token in found.document_tokens] == [
        *("[CLS]", "[unused1]", "A", "fast", "DOG", "the", "red", "cats", "[SEP]")
    ]
    places = {token.text: (token.start, token.stop) for token in found.document_tokens}
    assert (places["DOG"], places["cats"], places["[SEP]"]) == ((9, 12), (22, 26), (None, None))


def test_without_markers(tiny):
    found = check(model(tiny, projection=False))
    assert [token.text for token in found.query_tokens] == ["[CLS]", "Red", "cat", "?", "[SEP]"]


def test_a_prompt_stands_nowhere_in_the_query(tiny):
    late = model(tiny, projection=False)
    found = late.explain("Red cat?", "the red cat", prompt="the dog: ")
    assert found.score == pytest.approx(next(late.rerank("Red cat?", ["the red cat"], prompt="the dog: ")), rel=1e-5)
    assert [(token.text, token.start) for token in found.query_tokens] == [
        *(("[CLS]", None), ("the", None), ("dog", None), (":", None)),
        *(("Red", 0), ("cat", 4), ("?", 7), ("[SEP]", None)),
    ]


def test_long_texts_are_cut(tiny):
    LateInteractionTextEmbedding.add_custom_model("acme/cut", ModelSource(hf="acme/cut"), DIM, projection=False)
    late = LateInteractionTextEmbedding("acme/cut", specific_model_path=tiny, max_length=6)
    found = check(late, text="the red cat is fast " * 5000)
    assert [token.text for token in found.document_tokens] == ["[CLS]", "the", "red", "cat", "is", "[SEP]"]


@pytest.mark.parametrize("text", ["", "   ", "!?,"])
def test_documents_without_words(colbert, text):
    found = check(colbert, text=text)
    assert {token.start for token in found.document_tokens} == {None}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_folders(folder):
    """Also with SentencePiece, and with a skiplist of a module."""
    late = LateInteractionTextEmbedding(f"my/{folder.name}", specific_model_path=folder)
    check(late, "the red cat,  is fast", "the red cat, is fast  and the dog is not")


def test_pooled_embeddings_are_of_no_token(tmp_path):
    folder = shutil.copytree(support.FIXTURES / "folders" / "multi_vector", tmp_path / "pooled")
    config = folder / "4_HierarchicalTokenPooling" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "pool_factor": 2}))
    late = LateInteractionTextEmbedding("my/pooled", specific_model_path=folder)
    with pytest.raises(ValueError, match="they are pooled"):
        late.explain("red cat", "the red cat, is fast and the dog is not")


@pytest.mark.parametrize("arguments", [(3, "a"), ("a", None), (["a"], "a")])
def test_mistakes(colbert, arguments):
    with pytest.raises(TypeError, match=r"(query|document) must be a string"):
        colbert.explain(*arguments)


# -- as data, text and pictures ---------------------------------------------------------------------------------------


@pytest.fixture
def made():
    tokens = [Token("[CLS]", None, None), Token("<cat>", 0, 5), Token("\x1b[2J", 6, 10)]
    return Explanation(
        "q & a", "<cat> \x1b[2J", tokens[:2], tokens, np.array([[1, 0, -0.5], [0.2, 0.9, 0]], np.float32)
    )


def test_data(made):
    data = json.loads(json.dumps(made.as_dict()))
    assert data["score"] == pytest.approx(1.9)
    assert data["matches"] == [
        {"query": 0, "document": 0, "similarity": 1.0},
        {"query": 1, "document": 1, "similarity": pytest.approx(0.9)},
    ]
    assert data["document_tokens"][1] == {"text": "<cat>", "start": 0, "stop": 5}
    assert np.shape(data["similarities"]) == (2, 3)


def test_text(made):
    lines = made.text().split("\n")
    assert lines[0].split() == ["query", "token", "best", "document", "token", "characters", "similarity"]
    assert lines[1].split() == ["[CLS]", "[CLS]", "1.0000", "#" * 20]
    assert lines[2].split() == ["<cat>", "<cat>", "0-5", "0.9000", "#" * 18]
    assert lines[3] == "MaxSim 1.9000: the sum of these similarities"


def test_svg_is_xml_with_the_best_framed(made):
    root = ET.fromstring(made.svg())  # noqa: S314 - our own
    name = "{http://www.w3.org/2000/svg}"
    texts = ["".join(each.itertext()) for each in root.iter(f"{name}text")]
    assert "<cat>" in texts
    assert "1.00" in texts
    assert "-0.50" in texts
    framed = [each for each in root.iter(f"{name}rect") if each.get("stroke")]
    assert [each.get("fill-opacity") for each in framed] == ["0.750", "0.607"]
    assert "\x1b" not in made.svg()


def test_html_escapes_and_marks(made):
    page = made.html()
    assert "<cat>" not in page
    assert "&lt;cat&gt;" in page
    assert page.count("class=best") == 2
    assert '<mark title="&lt;cat&gt; 0.90"' in page
    assert "http" not in page


def test_a_document_without_tokens():
    found = Explanation("q", "", [Token("q", 0, 1)], [], np.zeros((1, 0), np.float32))
    assert found.matches == [(0, None, 0.0)]
    assert found.score == 0
    assert "0.0000" in found.text()
    assert found.svg()
    assert found.html()


@pytest.mark.real_model
def test_the_real_model_meets_the_same_word(real_model_folder):
    late = LateInteractionTextEmbedding(REAL, specific_model_path=real_model_folder)
    found = check(late, "capital of France", "Berlin is large. Paris is the capital of France.")
    best = {found.query_tokens[each.query].text: each.document for each in found.matches}
    assert found.document_tokens[best["capital"]].text == "capital"
    assert found.document_tokens[best["France"]].text == "France"
