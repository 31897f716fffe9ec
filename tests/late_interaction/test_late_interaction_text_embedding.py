"""Token vectors and their scores, on models small enough to check by hand."""

import inspect
import json
import shutil
import string

import numpy as np
import onnx
import pytest
import support
from conftest import REAL
from support.tiny_models import DIM, tiny_encoder, tiny_tokenizer, vocabulary, write_model

import fastrank
from fastrank import LateInteractionTextEmbedding, ModelSource, TextCrossEncoder, TextEmbedding
from fastrank.errors import ModelLoadError, ModelNotFoundError, OutputError
from fastrank.graph import build
from fastrank.maxsim import maxsim
from fastrank.models import registry
from fastrank.models.spec import LATE_INTERACTION, PoolingType

NAME = "acme/colbert"
IDS = {token: number for number, token in enumerate(vocabulary())}
QUERY, DOCUMENT = IDS["[unused0]"], IDS["[unused1]"]
COLBERT = {
    "query_prefix_token": QUERY,
    "document_prefix_token": DOCUMENT,
    "query_length": 8,
    "skiplist": string.punctuation,
}


def add(name=NAME, **settings):
    LateInteractionTextEmbedding.add_custom_model(name, ModelSource(hf=name), DIM, **settings)


@pytest.fixture
def states(tiny):
    """(ids, mask) -> all states, by the session that the models here use."""
    session = LateInteractionTextEmbedding(REAL, specific_model_path=tiny)._model.get().documents.session

    def run(ids, mask=None):
        from fastrank.engine.batching import Batch

        ids = np.array([ids])
        batch = Batch([0], ids, np.ones_like(ids) if mask is None else np.array([mask]), np.zeros_like(ids))
        return session.run(batch)[0]

    return run


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def plain(tiny):
    """Token vectors of all tokens, of length 1."""
    add("acme/plain", projection=False)
    return LateInteractionTextEmbedding("acme/plain", specific_model_path=tiny)


@pytest.fixture
def colbert(tiny):
    add(**COLBERT)
    return LateInteractionTextEmbedding(NAME, specific_model_path=tiny)


def ids(*tokens):
    return [IDS[token] for token in tokens]


def test_without_settings_all_tokens_have_vectors(plain, states):
    for method in (plain.embed, plain.query_embed, plain.passage_embed):
        (vectors,) = method("hello, world")
        assert (vectors.dtype, vectors.shape) == (np.float32, (5, DIM))
        expected = unit(states(ids("[CLS]", "hello", ",", "world", "[SEP]")))
        np.testing.assert_allclose(vectors, expected, atol=1e-6)


def test_documents_get_a_marker_and_lose_punctuation(colbert, states):
    (vectors,) = colbert.embed("hello, world!")
    expected = unit(states([IDS["[CLS]"], DOCUMENT, *ids("hello", ",", "world", "!", "[SEP]")]))
    np.testing.assert_allclose(vectors, expected[[0, 1, 2, 4, 6]], atol=1e-6)


@pytest.mark.parametrize(("attend", "mask"), [(False, [1, 1, 1, 1, 0, 0, 0, 0]), (True, [1] * 8)])
def test_short_queries_are_filled_up(tiny, states, attend, mask):
    add(**COLBERT, attend_to_expansion_tokens=attend)
    model = LateInteractionTextEmbedding(NAME, specific_model_path=tiny)
    (vectors,) = model.query_embed("hello")
    expected = unit(states([IDS["[CLS]"], QUERY, IDS["hello"], IDS["[SEP]"], *[IDS["[MASK]"]] * 4], mask))
    np.testing.assert_allclose(vectors, expected, atol=1e-6)


def test_queries_of_the_length_and_longer_ones_are_not(colbert, states):
    same, longer = colbert.query_embed(["cat " * 5, "cat! " * 7])
    np.testing.assert_allclose(same, unit(states([IDS["[CLS]"], QUERY, *ids("cat") * 5, IDS["[SEP]"]])), atol=1e-6)
    assert longer.shape == (17, DIM)  # punctuation counts in queries


def test_a_batch_changes_nothing(colbert):
    texts = ["cat", "the quick red dog of france! " * 9, "", "?!", "hello world"]
    for method in (colbert.embed, colbert.query_embed):
        together, alone = list(method(texts)), [next(method(text)) for text in texts]
        assert [v.shape for v in together] == [v.shape for v in alone]
        for one, other in zip(together, alone, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)


def test_empty_and_punctuation_only_documents_keep_their_special_tokens(colbert):
    assert [len(vectors) for vectors in colbert.embed(["", "?!...", " "])] == [3, 3, 3]


def test_limits_count_the_marker(tiny):
    add(**COLBERT, query_max_length=10)
    model = LateInteractionTextEmbedding(NAME, specific_model_path=tiny, max_length=12)
    assert len(next(model.embed("cat " * 600))) == 12
    assert len(next(model.query_embed("cat " * 600))) == 10
    default = LateInteractionTextEmbedding(NAME, specific_model_path=tiny)
    assert len(next(default.embed("cat " * 600))) == 512
    with pytest.raises(ValueError, match="3 special tokens"):
        LateInteractionTextEmbedding(NAME, specific_model_path=tiny, max_length=3)


def test_markers_as_tokens_and_elsewhere(tiny, states):
    add(document_prefix_token="[unused1]", prefix_position=0)  # noqa: S106
    (vectors,) = LateInteractionTextEmbedding(NAME, specific_model_path=tiny).embed("cat")
    np.testing.assert_allclose(vectors, unit(states([DOCUMENT, *ids("[CLS]", "cat", "[SEP]")])), atol=1e-6)
    add("acme/wrong", document_prefix_token="[D]")  # noqa: S106
    with pytest.raises(ModelLoadError, match=r"no token '\[D\]'"):
        LateInteractionTextEmbedding("acme/wrong", specific_model_path=tiny)


def test_normalize(tiny, states):
    raw = states(ids("[CLS]", "cat", "[SEP]"))
    for normalize, query, document in [("documents", raw, unit(raw)), ("none", raw, raw)]:
        add(f"acme/{normalize}", normalize=normalize)
        model = LateInteractionTextEmbedding(f"acme/{normalize}", specific_model_path=tiny)
        np.testing.assert_allclose(next(model.query_embed("cat")), query, atol=1e-6)
        np.testing.assert_allclose(next(model.embed("cat")), document, atol=1e-6)


def test_token_count_is_fastembeds(colbert):
    assert colbert.token_count("hello, world") == 5
    assert colbert.token_count(["hello, world", "cat"], include_extension=True) == 6 + 4
    assert colbert.token_count(["hello, world", "cat"], is_doc=False) == 8
    assert colbert.token_count(["hello, world", "cat " * 9], is_doc=False, include_extension=True) == 8 + 12


def test_rerank_is_maxsim(colbert):
    documents = ["paris is the capital of france", "", "a red dog"]
    query = next(colbert.query_embed("capital of france"))
    expected = [(query @ vectors.T).max(axis=1).sum() for vectors in colbert.embed(documents)]
    scores = list(colbert.rerank("capital of france", documents))
    assert [type(score) for score in scores] == [float] * 3
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    np.testing.assert_allclose(maxsim(query, list(colbert.embed(documents))), expected, atol=1e-5)
    ranked = colbert.rank("capital of france", [{"text": document} for document in documents], top_k=2)
    assert [r.score for r in ranked] == sorted(scores, reverse=True)[:2]
    assert ranked[0].text == {"text": documents[ranked[0].index]}


def test_rerank_checks_at_the_call_and_is_lazy(colbert):
    with pytest.raises(TypeError, match="query must be a string"):
        colbert.rerank(None, ["cat"])
    with pytest.raises(TypeError, match="not one string"):
        colbert.rerank("cat", "dog")
    with pytest.raises(ValueError, match="batch_size must be >= 1"):
        colbert.rerank("cat", ["dog"], batch_size=0)
    endless = (word for word in iter(lambda: "dog", None))
    scores = colbert.rerank("cat", endless)
    assert next(scores) == pytest.approx(next(scores), abs=1e-6)
    scores = colbert.rerank("cat", ["dog", 3])
    next(scores)
    with pytest.raises(TypeError, match=r"documents\[1\] must be a string"):
        next(scores)


def test_nan_is_named(tmp_path):
    add(**COLBERT)
    model = LateInteractionTextEmbedding(
        NAME, specific_model_path=write_model(tmp_path / "nan", tiny_encoder(nan=True))
    )
    with pytest.raises(OutputError, match=r"documents\[1\]"):
        list(model.embed(["cat", "nan"]))


def test_a_model_of_another_width_is_refused(tmp_path):
    add(**COLBERT)
    model = LateInteractionTextEmbedding(NAME, specific_model_path=write_model(tmp_path / "wide", tiny_encoder(24)))
    with pytest.raises(ModelLoadError, match="returns 24-dimensional vectors; expected 16"):
        next(model.embed("cat"))


def test_sizes_names_and_lists():
    rows = {row["model"]: row for row in LateInteractionTextEmbedding.list_supported_models()}
    assert LateInteractionTextEmbedding.get_embedding_size("colbert-ir/ColBERTv2.0") == 128
    for name, dim in [
        ("colbert-ir/colbertv2.0", 128),
        ("answerdotai/answerai-colbert-small-v1", 96),
        ("jinaai/jina-colbert-v2", 128),
        ("lightonai/LateOn", 128),
        ("lightonai/mLateOn", 128),
        (REAL, 384),
    ]:
        assert rows[name]["dim"] == dim
    assert list(rows[REAL]) == [
        *("model", "sources", "model_file", "description", "license", "size_in_GB", "additional_files", "dim", "tasks"),
    ]
    with pytest.raises(ModelNotFoundError, match=r"Did you mean colbert-ir/colbertv2\.0"):
        LateInteractionTextEmbedding("colbertv2")


def test_custom_models_are_checked():
    with pytest.raises(ValueError, match="normalize must be one of"):
        add(normalize="yes")
    with pytest.raises(ValueError, match="dim must be >= 1"):
        LateInteractionTextEmbedding.add_custom_model(NAME, ModelSource(hf=NAME), 0)
    add()
    with pytest.raises(ValueError, match="already registered in LateInteractionTextEmbedding"):
        add()
    TextEmbedding.add_custom_model(
        NAME, PoolingType.MEAN, True, ModelSource(hf=NAME), DIM
    )  # another class, another list


@pytest.mark.parametrize("method", ["embed", "query_embed", "passage_embed", "rerank", "__init__"])
def test_signatures_begin_as_those_of_the_sisters(method):
    sister = TextCrossEncoder if method == "rerank" else TextEmbedding
    ours = list(inspect.signature(getattr(LateInteractionTextEmbedding, method)).parameters)
    theirs = list(inspect.signature(getattr(sister, method)).parameters)
    assert ours == [
        name for name in theirs if name not in ("instruction", "normalize", "pooling", "prefixes", "task_id")
    ]


def test_import_path():
    assert fastrank.late_interaction.LateInteractionTextEmbedding is fastrank.LateInteractionTextEmbedding


FIXTURES = sorted((support.FIXTURES / "late_interaction").iterdir())


@pytest.mark.parametrize("folder", [pytest.param(folder, id=folder.name) for folder in FIXTURES])
@pytest.mark.parametrize("batch", [1, 256])
def test_folders_of_colbert_and_pylate(folder, batch):
    """Made and run by scripts/make_late_interaction_fixtures.py; the settings are the folder's own."""
    expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    with LateInteractionTextEmbedding("my/model", specific_model_path=folder) as model:
        assert model.embedding_size == 8
        for method, rows in ((model.query_embed, expected["queries"]), (model.embed, expected["documents"])):
            texts = [text for text, _ in rows]
            for found, (text, vectors) in zip(method(texts, batch), rows, strict=True):
                assert found.shape == (len(vectors), 8), text
                np.testing.assert_allclose(found, vectors, atol=1e-5, err_msg=text)


def test_a_folder_under_a_known_name_is_that_model(caplog):
    folder = FIXTURES[-1]
    add("acme/told", query_prefix_token="[D] ", mask_token="<mask>")  # noqa: S106
    with pytest.raises(ModelLoadError, match="returns 8-dimensional vectors; expected 16"):
        next(LateInteractionTextEmbedding("acme/told", specific_model_path=folder).embed("cat"))
    assert "has settings of its own, which differ" in caplog.text


@pytest.mark.parametrize("folder", [FIXTURES[0], FIXTURES[-1]], ids=["ColBERT", "PyLate"])
def test_of_a_custom_model_from_a_hub_the_name_is_enough(folder, hub):
    hub.add_repo(
        "acme/own", {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    )
    LateInteractionTextEmbedding.add_custom_model("acme/own")
    with pytest.raises(ValueError, match="added without dim"):
        LateInteractionTextEmbedding.get_embedding_size("acme/own")
    lazy = LateInteractionTextEmbedding("acme/own", lazy_load=True)
    assert lazy.embedding_size == 8
    given = LateInteractionTextEmbedding("my/model", specific_model_path=folder)
    np.testing.assert_array_equal(next(lazy.query_embed("cat")), next(given.query_embed("cat")))


def test_a_folder_that_says_nothing_is_refused(tiny):
    with pytest.raises(ModelLoadError, match="does not say how token vectors are made"):
        LateInteractionTextEmbedding("my/model", specific_model_path=tiny)
    with pytest.raises(ModelNotFoundError):
        LateInteractionTextEmbedding("my/model")
    with pytest.raises(ModelNotFoundError, match="It is a model for TextEmbedding"):
        LateInteractionTextEmbedding("BAAI/bge-small-en-v1.5", specific_model_path=tiny)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("1_Dense/config.json", {"in_features": 31}, "the module before it returns 32 features"),
        ("1_Dense/config.json", {"out_features": 7}, "has the shape"),
        ("1_Dense/config.json", {"activation_function": "os.system"}, "activation_function"),
        ("config_sentence_transformers.json", {"query_length": "many"}, "query_length"),
        ("config_sentence_transformers.json", {"skiplist_words": "!"}, "skiplist_words"),
        ("config_sentence_transformers.json", {"document_prefix": "[X]"}, r"no token '\[X\]'"),
        ("modules.json", [{"type": "pylate.models.Dense.Dense", "path": "../x"}], "leads out of the folder"),
        ("modules.json", [{"path": "1_Dense"}], "a module without type or path"),
        ("tokenizer_config.json", {}, "names no mask_token"),
    ],
)
def test_damaged_folders_are_named(tmp_path, file, change, message):
    folder = tmp_path / "model"
    shutil.copytree(FIXTURES[-1], folder)
    path = folder / file
    content = json.loads(path.read_bytes())
    changed = {**content, **change} if isinstance(change, dict) and change else change
    path.write_text(json.dumps(changed), encoding="utf-8")
    with pytest.raises(ModelLoadError, match=message):
        LateInteractionTextEmbedding("my/model", specific_model_path=folder)


def test_a_checkpoint_without_projection_is_refused(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(FIXTURES[-1], folder)
    (folder / "modules.json").unlink()
    LateInteractionTextEmbedding.add_custom_model("my/model", ModelSource(hf="my/model"), 8)
    with pytest.raises(ModelLoadError, match=r"neither has model.safetensors a tensor linear.weight nor modules.json"):
        LateInteractionTextEmbedding("my/model", specific_model_path=folder)


def test_hidden_states_never_leave_the_graph():
    for folder in FIXTURES:
        (output,) = onnx.load_from_string(build(folder, "colbert")).graph.output
        assert output.name == "token_vectors"
        assert [size.dim_value or size.dim_param for size in output.type.tensor_type.shape.dim][-1] == 8


def test_close(colbert):
    with colbert:
        pass
    with pytest.raises(RuntimeError, match="closed"):
        colbert.embed("cat")


@pytest.mark.real_model
def test_the_real_model_finds_the_answer(real_model_folder):
    with LateInteractionTextEmbedding(REAL, specific_model_path=real_model_folder) as model:
        assert model.embedding_size == 384
        (vectors,) = model.embed("hello world")
        assert vectors.shape == (4, 384)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
        best = model.rank("capital of France", ["Berlin is big.", "Paris is the capital.", "Cats purr."], 1)
        assert best[0].index == 1


def fastembeds(kind):
    """FastEmbed's class behind a model, and how the tiny tokenizer is that its mask token needs."""
    fastembed = pytest.importorskip("fastembed", reason="fastembed is not installed")
    from fastembed.late_interaction import colbert, jina_colbert, lateon

    assert fastembed
    return {
        "colbert-ir/colbertv2.0": (colbert.Colbert, "wordpiece"),
        "answerdotai/answerai-colbert-small-v1": (colbert.Colbert, "wordpiece"),
        "jinaai/jina-colbert-v2": (jina_colbert.JinaColbert, "bpe"),
        "lightonai/LateOn": (lateon.LateOn, "wordpiece"),
        "lightonai/mLateOn": (lateon.MLateOn, "bpe"),
    }[kind]


@pytest.mark.parametrize(
    "name",
    [
        *("colbert-ir/colbertv2.0", "answerdotai/answerai-colbert-small-v1", "jinaai/jina-colbert-v2"),
        *("lightonai/LateOn", "lightonai/mLateOn"),
    ],
)
def test_vectors_equal_an_installed_fastembed(name, tmp_path, monkeypatch):
    """One ONNX file, of FastEmbed's name, in both; marker ids are lowered to those of a tiny vocabulary."""
    own, kind = fastembeds(name)
    spec = registry.find(name, LATE_INTERACTION)
    task = spec.tasks[LATE_INTERACTION]
    assert (task.query_prefix_token, task.document_prefix_token) == (
        own.QUERY_MARKER_TOKEN_ID,
        own.DOCUMENT_MARKER_TOKEN_ID,
    )
    monkeypatch.setattr(own, "QUERY_MARKER_TOKEN_ID", 1)
    monkeypatch.setattr(own, "DOCUMENT_MARKER_TOKEN_ID", 2)
    task = task._replace(query_prefix_token=1, document_prefix_token=2)
    low = spec._replace(tasks={LATE_INTERACTION: task}, max_length=64)
    monkeypatch.setattr(registry, "_custom", {(name.casefold(), LATE_INTERACTION): low})

    graph = tiny_encoder(task.dim, segments=False)
    write_model(tmp_path, graph, tokenizer=tiny_tokenizer(kind), model_path=spec.variants[0].model, pad_token_id=None)
    limit = 63 if own.RESERVED_MARKER_TOKENS == 0 else 64
    pad = "[PAD]" if kind == "wordpiece" else "<pad>"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": limit, "pad_token": pad}))
    from fastembed import LateInteractionTextEmbedding as Theirs

    theirs = Theirs(name, specific_model_path=str(tmp_path))
    ours = LateInteractionTextEmbedding(name, specific_model_path=tmp_path)
    queries = ["", "cat", "cat " * 28, "cat " * 29, "cat " * 30, "what, where? " * 30, "Grüße ☃ zx9!"]
    documents = [*queries, "?!... (-) ;=", "the cat is red, the dog is blue. " * 9, "a-b/c"]
    for ask in ("query_embed", "embed"):
        texts = queries if ask == "query_embed" else documents
        for text, found, expected in zip(texts, getattr(ours, ask)(texts), getattr(theirs, ask)(texts), strict=True):
            assert (found.shape, found.dtype) == (expected.shape, np.float32), text
            np.testing.assert_allclose(found, expected, atol=1e-4, err_msg=text)
    for is_doc, extension in [(True, False), (True, True), (False, False), (False, True)]:
        texts = documents if is_doc else queries
        counts = [model.token_count(texts, is_doc=is_doc, include_extension=extension) for model in (ours, theirs)]
        assert counts[0] == counts[1], (is_doc, extension)
