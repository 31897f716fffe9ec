"""TextCrossEncoder over tiny models: scores, ranking, truncation, heads, bad input."""

import inspect
import itertools
import json
import os
import re
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import support
import tokenizers
from support import tiny_models

from fastrank import ModelSource, RankedDocument, TextCrossEncoder, graph, store
from fastrank.engine.tokenizer import Tokenizer
from fastrank.errors import ModelLoadError, ModelNotFoundError, OutputError
from fastrank.models import tokenization

NAME = "acme/cross"
QUERY = "what is the capital of france"
DOCUMENTS = ["paris is the capital of france", "berlin", "", "the cat is red and fast " * 9, "é 中 😀"]
DATA = Path(os.environ.get("FASTRANK_TEST_DATA") or Path(__file__).parents[3] / "shared" / "data") / "models"


def add(**options):
    TextCrossEncoder.add_custom_model(NAME, ModelSource(hf=NAME), max_length=64, **options)


def folder_of(tmp_path, n_classes=1, **options):
    return tiny_models.write_model(tmp_path / "cross", tiny_models.tiny_cross_encoder(n_classes, **options))


@pytest.fixture
def folder(tmp_path):
    return folder_of(tmp_path)


@pytest.fixture
def model(folder):
    add()
    with TextCrossEncoder(NAME, specific_model_path=folder, threads=2) as loaded:
        yield loaded


def by_hand(folder, query, document, limit=64):
    """The logits of one pair, as onnxruntime and tokenizers give them."""
    import onnxruntime

    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(limit)
    encoding = tokenizer.encode(query, document)
    feed = {
        "input_ids": np.array([encoding.ids]),
        "attention_mask": np.array([encoding.attention_mask]),
        "token_type_ids": np.array([encoding.type_ids]),
    }
    return onnxruntime.InferenceSession(str(folder / "onnx" / "model.onnx")).run(None, feed)[0][0]


# -- scores -----------------------------------------------------------------------------------------------------------


def test_scores_are_raw_logits_as_floats_in_order(model, folder):
    scores = list(model.rerank(QUERY, DOCUMENTS))
    assert {type(score) for score in scores} == {float}
    expected = [by_hand(folder, QUERY, document)[0] for document in DOCUMENTS]
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert len(set(scores)) == len(DOCUMENTS)


def test_segments_reach_the_model(tmp_path, model, folder):
    plain = folder_of(tmp_path / "plain", segments=False)
    TextCrossEncoder.add_custom_model("acme/plain", ModelSource(hf=NAME), max_length=64)
    with TextCrossEncoder("acme/plain", specific_model_path=plain) as other:
        assert not np.allclose(list(other.rerank(QUERY, DOCUMENTS)), list(model.rerank(QUERY, DOCUMENTS)), atol=1e-3)


@pytest.mark.parametrize("batch_size", [1, 2, 7, 64])
def test_a_score_does_not_depend_on_its_neighbours(model, batch_size):
    documents = [f"{document} {'cat ' * (n % 23)}" for n, document in enumerate(DOCUMENTS * 20)]
    alone = [next(model.rerank(QUERY, [document])) for document in documents]
    np.testing.assert_allclose(list(model.rerank(QUERY, documents, batch_size=batch_size)), alone, atol=1e-5)
    np.testing.assert_allclose(
        list(model.rerank(QUERY, documents[::-1], batch_size=batch_size))[::-1], alone, atol=1e-5
    )


@pytest.mark.parametrize("parallel", [None, 0, 1, 3])
def test_pairs(model, parallel):
    pairs = [(query, document) for query in (QUERY, "cat") for document in DOCUMENTS] * 30
    scores = list(model.rerank_pairs(pairs, parallel=parallel))
    single = [*model.rerank(QUERY, DOCUMENTS), *model.rerank("cat", DOCUMENTS)]
    np.testing.assert_allclose(scores, single * 30, atol=1e-5)
    assert list(model.rerank_pairs(("cat", "dog"))) == list(model.rerank("cat", ["dog"]))
    assert list(model.rerank_pairs([])) == []
    assert list(model.rerank_pairs([["cat", "dog"]])) == list(model.rerank("cat", ["dog"]))


def test_scores_are_lazy_and_read_one_window_ahead(model):
    taken = itertools.count()
    scores = model.rerank("cat", (f"dog {next(taken)}" for _ in itertools.count()))
    next(scores)
    assert next(taken) == 256
    scores.close()


def test_token_count(model, folder):
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    pairs = [(QUERY, document) for document in DOCUMENTS]
    assert model.token_count(pairs) == sum(min(64, len(tokenizer.encode(*pair).ids)) for pair in pairs)
    assert model.token_count(("cat", "dog")) == 5


# -- rank -------------------------------------------------------------------------------------------------------------


def test_rank_sorts(model):
    scores = list(model.rerank(QUERY, DOCUMENTS))
    ranked = model.rank(QUERY, DOCUMENTS)
    assert [each.index for each in ranked] == sorted(range(len(DOCUMENTS)), key=lambda n: -scores[n])
    for each in ranked:
        assert isinstance(each, RankedDocument)
        assert each.text == DOCUMENTS[each.index]
        assert each.score == pytest.approx(scores[each.index], abs=1e-5)
    assert [each.index for each in model.rank(QUERY, DOCUMENTS, top_k=2)] == [each.index for each in ranked[:2]]
    assert len(model.rank(QUERY, DOCUMENTS, top_k=99)) == len(DOCUMENTS)
    assert model.rank(QUERY, []) == []
    assert [each.index for each in model.rank(QUERY, ["cat", "cat", "cat"])] == [0, 1, 2]


def test_rank_takes_mappings_and_gives_them_back(model):
    rows = [{"id": n, "body": document} for n, document in enumerate(DOCUMENTS)]
    ranked = model.rank(QUERY, iter(rows), field="body")
    assert [each.index for each in ranked] == [each.index for each in model.rank(QUERY, DOCUMENTS)]
    assert all(each.text is rows[each.index] for each in ranked)
    with pytest.raises(TypeError, match=r"documents\[0\] has no field 'text'; it has id, body"):
        model.rank(QUERY, rows)
    with pytest.raises(TypeError, match=r"documents\[1\]\['text'\] must be a string, not NoneType"):
        model.rank(QUERY, [{"text": "x"}, {"text": None}])


def test_rank_batch_is_rank_for_each(model):
    queries = [QUERY, "cat", "nothing"]
    documents = [DOCUMENTS, ["cat", "dog"], []]
    batches = model.rank_batch(queries, documents, top_k=2)
    assert [len(batch) for batch in batches] == [2, 2, 0]
    for batch, query, each in zip(batches, queries, documents, strict=True):
        assert [ranked.index for ranked in batch] == [ranked.index for ranked in model.rank(query, each, top_k=2)]
    with pytest.raises(ValueError, match="got 2 queries, but 1 lists of documents"):
        model.rank_batch(["a", "b"], [["c"]])
    for wrong, name in ([["x"], "y"], "documents[1]"), ([["x"], ["y", None]], "documents[1][1]"):
        with pytest.raises(TypeError, match=f"^{re.escape(name)} must be"):
            model.rank_batch(["a", "b"], wrong)


# -- truncation -------------------------------------------------------------------------------------------------------


def pieces(tokenizer, pair):
    tokens = tokenizer.encode([pair])[0]
    return [
        [tokenizer.vocab[n] for n, kind in zip(tokens.ids, tokens.types, strict=True) if kind == side]
        for side in (0, 1)
    ]


def test_longest_first_cuts_the_longer_one(folder):
    tokenizer = Tokenizer(tokenization.read(folder), 16)
    query, document = pieces(tokenizer, ("cat " * 30, "dog"))
    assert (query.count("cat"), document.count("dog")) == (12, 1)
    query, document = pieces(tokenizer, ("cat " * 30, "dog " * 30))
    assert query.count("cat") + document.count("dog") == 13
    assert abs(query.count("cat") - document.count("dog")) <= 1


def test_only_second_never_cuts_the_query(folder):
    tokenizer = Tokenizer(tokenization.read(folder), 16, "only_second")
    query, document = pieces(tokenizer, ("cat " * 10, "dog " * 30))
    assert (query.count("cat"), document.count("dog")) == (10, 3)
    query, document = pieces(tokenizer, ("cat " * 30, "dog " * 30))  # unless it alone is too long
    assert query.count("cat") + document.count("dog") == 13
    assert [len(t.ids) for t in tokenizer.encode([("cat", "dog"), ("cat " * 40, "dog"), ("cat", "dog " * 99)])] == [
        5,
        16,
        16,
    ]


def test_truncation_is_an_option(folder):
    add()
    long = ("what is the capital of france " * 6, "paris " * 200)
    scores = {
        way: next(TextCrossEncoder(NAME, specific_model_path=folder, truncation=way).rerank_pairs(long))
        for way in ("longest_first", "only_second")
    }
    assert scores["longest_first"] != pytest.approx(scores["only_second"], abs=1e-4)
    assert scores["longest_first"] == pytest.approx(by_hand(folder, *long)[0], abs=1e-5)


def test_a_pair_of_ten_megabytes(model):
    text = "the cat is fast and red " * 450_000
    huge = list(model.rerank_pairs([(text, "dog"), ("dog", text), (text, text)]))
    cut = text[:100_000]
    np.testing.assert_allclose(huge, list(model.rerank_pairs([(cut, "dog"), ("dog", cut), (cut, cut)])), atol=1e-5)


# -- heads ------------------------------------------------------------------------------------------------------------


def test_several_classes_must_be_declared(tmp_path):
    folder = folder_of(tmp_path, 3)
    add()
    with pytest.raises(ModelLoadError, match="has 3 labels"):
        list(TextCrossEncoder(NAME, specific_model_path=folder).rerank(QUERY, DOCUMENTS))
    logits = np.array([by_hand(folder, QUERY, document) for document in DOCUMENTS])
    for label in (0, 2):
        TextCrossEncoder.add_custom_model(f"acme/label{label}", ModelSource(hf=NAME), label=label, max_length=64)
        scores = list(TextCrossEncoder(f"acme/label{label}", specific_model_path=folder).rerank(QUERY, DOCUMENTS))
        np.testing.assert_allclose(scores, logits[:, label], atol=1e-5)
    TextCrossEncoder.add_custom_model(
        "acme/softmax", ModelSource(hf=NAME), label=1, activation="softmax", max_length=64
    )
    scores = list(TextCrossEncoder("acme/softmax", specific_model_path=folder).rerank(QUERY, DOCUMENTS))
    powers = np.exp(logits)
    np.testing.assert_allclose(scores, powers[:, 1] / powers.sum(axis=1), atol=1e-5)
    TextCrossEncoder.add_custom_model("acme/beyond", ModelSource(hf=NAME), label=3, max_length=64)
    with pytest.raises(ModelLoadError, match="label=3, but the model has only 3 labels"):
        list(TextCrossEncoder("acme/beyond", specific_model_path=folder).rerank(QUERY, DOCUMENTS))


def test_sigmoid(model, folder):
    with TextCrossEncoder(NAME, specific_model_path=folder, activation="sigmoid") as other:
        expected = 1 / (1 + np.exp(-np.array(list(model.rerank(QUERY, DOCUMENTS)))))
        np.testing.assert_allclose(list(other.rerank(QUERY, DOCUMENTS)), expected, atol=1e-6)


FIXTURES = support.FIXTURES / "graph"


@pytest.mark.parametrize(
    "name", ["bert_with_head", "xlm_roberta_classifier", "electra_classifier", "modernbert_classifier"]
)
def test_checkpoints_equal_transformers(name):
    """Through the session, as the class runs it; tests/graph compares every case."""
    from fastrank.engine.batching import Batch
    from fastrank.engine.options import Options
    from fastrank.engine.session import Model, Session

    build = partial(graph.build, FIXTURES / name, "sequence-classification")
    session = Session(Model(FIXTURES / name / "model.safetensors", build), Options())
    cases = json.loads((FIXTURES / name / "expected.json").read_text())
    for case in (cases["one"], cases["longest"], cases["padded"]):
        ids, mask = np.array(case["input_ids"], np.int64), np.array(case["attention_mask"], np.int64)
        types = np.array(case.get("token_type_ids", np.zeros_like(ids)), np.int64)
        found = session.run(Batch(range(len(ids)), ids, mask, types), "logits")
        np.testing.assert_allclose(found, case["logits"], atol=1e-5)


SAVED = support.FIXTURES / "pair_classifier"


def test_a_folder_says_how_it_is_used(folder):
    """`expected.json` is of sentence-transformers 6.2's CrossEncoder (scripts/make_modules_fixture.py)."""
    expected = json.loads((SAVED / "expected.json").read_text())
    pairs = [tuple(pair) for pair in expected["pairs"]]
    with TextCrossEncoder("my/finetuned", specific_model_path=SAVED) as model:
        assert model.model_name == "my/finetuned"
        np.testing.assert_allclose(list(model.rerank_pairs(pairs)), expected["scores"], atol=1e-5)
    with TextCrossEncoder("my/finetuned", specific_model_path=SAVED, activation="sigmoid") as model:
        expected = 1 / (1 + np.exp(-np.array(expected["scores"])))
        np.testing.assert_allclose(list(model.rerank_pairs(pairs)), expected, atol=1e-6)
    with TextCrossEncoder("my/graph", specific_model_path=folder, max_length=64) as model:  # no modules.json
        assert next(model.rerank("cat", ["dog"])) == pytest.approx(by_hand(folder, "cat", "dog")[0], abs=1e-5)
    with pytest.raises(ModelNotFoundError, match="It is a model for TextEmbedding"):
        TextCrossEncoder("BAAI/bge-small-en-v1.5", specific_model_path=folder)


def test_a_repository_says_how_it_is_used(hub):
    for name in ("pair_classifier", "modules"):
        source = SAVED.parent / name
        files = {path.relative_to(source).as_posix(): path.read_bytes() for path in source.rglob("*") if path.is_file()}
        hub.add_repo(f"acme/{name}", files)
        TextCrossEncoder.add_custom_model(f"acme/{name}")
        expected = json.loads(files["expected.json"])
        with TextCrossEncoder(f"acme/{name}") as model:
            scores = list(model.rerank_pairs([tuple(pair) for pair in expected["pairs"]]))
        np.testing.assert_allclose(scores, expected["scores"], atol=1e-5)


def test_a_folder_with_a_default_prompt_puts_it_before_queries(tmp_path):
    folder = Path(shutil.copytree(SAVED, tmp_path / "folder", copy_function=shutil.copyfile))
    with TextCrossEncoder("my/finetuned", specific_model_path=folder) as model:
        plain = list(model.rerank("red cat", ["dog", "cat"]))
    stated = {"prompts": {"task": "red "}, "default_prompt_name": "task"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(stated))
    with TextCrossEncoder("my/finetuned", specific_model_path=folder) as model:
        assert list(model.rerank("cat", ["dog", "cat"])) == plain


def test_a_folder_that_makes_no_score(tmp_path):
    encoder = Path(shutil.copytree(SAVED.parent / "sentence_encoder", tmp_path / "x", copy_function=shutil.copyfile))
    (encoder / "config_sentence_transformers.json").unlink()
    with (
        TextCrossEncoder("my/embeddings", specific_model_path=encoder) as model,
        pytest.raises(ModelLoadError, match="my/embeddings: the model has 24 labels"),
    ):
        list(model.rerank("cat", ["dog"]))


@pytest.mark.skipif(not DATA.is_dir(), reason="other people's models are not on this machine (FASTRANK_TEST_DATA)")
def test_a_third_party_graph_through_the_hub(hub):
    source = DATA / "opensearch-tiny-xlmr-ce"
    files = {name: (source / name).read_bytes() for name in ("model.onnx", "tokenizer.json")}
    hub.add_repo("acme/xlmr", files)
    TextCrossEncoder.add_custom_model("acme/xlmr", ModelSource(hf="acme/xlmr"), model_file="model.onnx", max_length=60)
    documents = ["a fox", "", "dog and fox and hello world " * 30]
    with TextCrossEncoder("acme/xlmr") as model:
        scores = list(model.rerank("hello world", documents))
        assert Path(model.info()["folder"]).is_relative_to(store.root())
        assert "token_type_ids" not in model._model.get().documents.session.inputs
        alone = [next(model.rerank("hello world", [document])) for document in documents]
    np.testing.assert_allclose(scores, alone, atol=1e-5)
    assert len(set(scores)) == len(documents)


# -- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda m: m.rerank(None, ["x"]), TypeError, "query must be a string, not NoneType"),
        (lambda m: m.rerank(["q"], ["x"]), TypeError, "query must be a string, not list"),
        (lambda m: m.rerank("q", None), TypeError, "documents must be a string or an iterable"),
        (lambda m: m.rerank("q", ["x"], batch_size=0), ValueError, "batch_size must be >= 1"),
        (lambda m: m.rerank("q", ["x"], parallel=-1), ValueError, "parallel must be"),
        (lambda m: m.rerank_pairs("q"), TypeError, r"pairs must be an iterable of \(query, document\) pairs, not str"),
        (lambda m: m.rerank_pairs(None), TypeError, "not NoneType"),
        (lambda m: m.rank("q", ["x"], top_k=0), ValueError, "top_k must be >= 1"),
        (lambda m: m.rerank("q", ["x"], topk=1), TypeError, "topk"),
    ],
)
def test_arguments_are_checked_at_the_call(model, call, error, text):
    with pytest.raises(error, match=text):
        call(model)


def test_bad_items_come_after_what_was_before_them(model):
    scores = model.rerank("cat", ["dog", None])
    assert next(scores) == next(model.rerank("cat", ["dog"]))
    with pytest.raises(TypeError, match=r"documents\[1\] must be a string, not NoneType"):
        next(scores)
    for wrong, text in [
        ("ab", r"pairs\[1\] must be a pair"),
        (("a",), "must be a pair"),
        (("a", 1), r"pairs\[1\]\[1\] must be a string"),
    ]:
        scores = model.rerank_pairs([("cat", "dog"), wrong])
        next(scores)
        with pytest.raises(TypeError, match=text):
            next(scores)


def test_surrogates(model):
    assert list(model.rerank("\ud83d\ude00", ["x \ud800"])) == list(model.rerank("😀", ["x \ufffd"]))


def test_nan_names_the_document(tmp_path):
    add()
    model = TextCrossEncoder(NAME, specific_model_path=folder_of(tmp_path, nan=True))
    with pytest.raises(OutputError, match=r"documents\[1\]"):
        list(model.rerank("cat", ["dog", "nan"]))
    with pytest.raises(OutputError, match=r"pairs\[1\]"):
        list(model.rerank_pairs([("cat", "dog"), ("nan", "dog")]))
    with pytest.raises(OutputError, match=r"documents\[1\]\[2\]"):
        model.rank_batch(["cat", "dog"], [["cat"] * 400, ["dog", "dog", "nan"]])


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"truncation": "only_first"}, "truncation must be one of"),
        ({"activation": "relu"}, "activation must be one of"),
    ],
)
def test_wrong_options(folder, options, text):
    add()
    with pytest.raises(ValueError, match=text):
        TextCrossEncoder(NAME, specific_model_path=folder, **options)


# -- the face ---------------------------------------------------------------------------------------------------------


def test_fastembeds_import_path_and_signatures():
    from fastrank.rerank.cross_encoder import TextCrossEncoder as Theirs

    assert Theirs is TextCrossEncoder
    expected = {
        "__init__": ["model_name", "cache_dir", "threads", "providers", "cuda", "device_ids", "lazy_load"],
        "rerank": ["query", "documents", "batch_size"],
        "rerank_pairs": ["pairs", "batch_size", "parallel"],
        "token_count": ["pairs", "batch_size"],
        "add_custom_model": [
            "model",
            "sources",
            "model_file",
            "description",
            "license",
            "size_in_gb",
            "additional_files",
        ],
    }
    for method, names in expected.items():
        parameters = [
            name
            for name in inspect.signature(getattr(TextCrossEncoder, method)).parameters
            if name not in ("self", "cls")
        ]
        assert parameters[: len(names)] == names
    assert inspect.signature(TextCrossEncoder.rerank).parameters["batch_size"].default == 64


def test_list_supported_models():
    rows = TextCrossEncoder.list_supported_models()
    keys = ["model", "sources", "model_file", "description", "license", "size_in_GB", "additional_files"]
    assert all(list(row) == keys for row in rows)
    names = {row["model"].lower() for row in rows}
    for known in (
        *("Xenova/ms-marco-MiniLM-L-6-v2", "Xenova/ms-marco-MiniLM-L-12-v2", "BAAI/bge-reranker-base"),
        *("jinaai/jina-reranker-v1-tiny-en", "jinaai/jina-reranker-v1-turbo-en", "BAAI/bge-reranker-v2-m3"),
        "jinaai/jina-reranker-v2-base-multilingual",
    ):
        assert known.lower() in names


def test_scores_equal_an_installed_fastembed(model, folder):
    fastembed = pytest.importorskip("fastembed.rerank.cross_encoder", reason="fastembed is not installed")
    settings = {"model_max_length": 64, "pad_token": "[PAD]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "special_tokens_map.json").write_text(json.dumps({"cls_token": "[CLS]", "sep_token": "[SEP]"}))
    theirs = fastembed.TextCrossEncoder("Xenova/ms-marco-MiniLM-L-6-v2", specific_model_path=str(folder))
    documents = [*DOCUMENTS, "cat " * 300]
    np.testing.assert_allclose(list(model.rerank(QUERY, documents)), list(theirs.rerank(QUERY, documents)), atol=1e-4)
    long = "what is the capital of france " * 40
    np.testing.assert_allclose(list(model.rerank(long, documents)), list(theirs.rerank(long, documents)), atol=1e-4)
