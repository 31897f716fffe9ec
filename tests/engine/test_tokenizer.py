"""Ragged ids with limits of our own, whatever tokenizer.json says."""

import json
import time

import numpy as np
import pytest
import tokenizers
from support import tiny_models
from support.waiting import patience

from fastrank.engine.tokenizer import Tokenizer
from fastrank.errors import ModelLoadError
from fastrank.models import tokenization


def folder(tmp_path, files=None, **tokenizer):
    tmp_path.mkdir(exist_ok=True)
    for name, content in {"tokenizer.json": tiny_models.tiny_tokenizer(**tokenizer), **(files or {})}.items():
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return tmp_path


def ids(tokenizer, *texts):
    return [tokens.ids.tolist() for tokens in tokenizer.encode(texts)]


def test_ids_are_those_of_the_file_and_ragged(tmp_path):
    place = folder(tmp_path)
    reference = tokenizers.Tokenizer.from_file(str(place / "tokenizer.json"))
    texts = ["hello world", "the cat is fast and red", ""]
    assert ids(Tokenizer(tokenization.read(place), 64), *texts) == [reference.encode(text).ids for text in texts]
    assert Tokenizer(tokenization.read(place), 64).encode(["hello"])[0].ids.dtype == np.int32


def test_padding_and_truncation_in_the_file_are_ignored(tmp_path):
    baked = Tokenizer(tokenization.read(folder(tmp_path, padding=128, truncation=128)), 256)
    found = ids(baked, "hello", "cat " * 200)
    assert len(found[0]) == 3
    assert len(found[1]) == 202


def test_long_texts_are_cut_to_the_limit(tmp_path):
    found = ids(Tokenizer(tokenization.read(folder(tmp_path)), 8), "cat " * 50)
    assert len(found[0]) == 8
    assert found[0][-1] == tiny_models.vocabulary().index("[SEP]")


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, 512),
        ({"config.json": {"max_position_embeddings": 77}}, 77),
        ({"config.json": {"max_position_embeddings": 514, "model_type": "xlm-roberta"}}, 512),
        ({"tokenizer_config.json": {"model_max_length": 300, "max_length": 128}}, 300),
        ({"tokenizer_config.json": {"model_max_length": 1e30}, "config.json": {"max_position_embeddings": 99}}, 99),
        ({"sentence_bert_config.json": {"max_seq_length": 40}, "tokenizer_config.json": {"model_max_length": 300}}, 40),
        ({"sentence_bert_config.json": {"max_seq_length": 90}, "tokenizer_config.json": {"model_max_length": 50}}, 90),
        ({"sentence_bert_config.json": {"max_seq_length": 90}, "config.json": {"max_position_embeddings": 77}}, 77),
        ({"sentence_bert_config.json": {"max_seq_length": None}}, 512),
        ({"sentence_bert_config.json": {"max_seq_length": "9"}, "tokenizer_config.json": {"model_max_length": 50}}, 50),
    ],
)
def test_the_limit_of_the_files_is_found(tmp_path, files, limit):
    assert Tokenizer(tokenization.read(folder(tmp_path, files))).max_length == limit


@pytest.mark.parametrize(
    ("files", "options", "pad"),
    [
        ({"config.json": {"pad_token_id": 3}}, {"padding": 16}, 0),
        ({"config.json": {"pad_token_id": 3}}, {}, 3),
        ({"tokenizer_config.json": {"pad_token": {"content": "[MASK]"}}}, {}, 6),
        ({}, {}, 0),
        ({}, {"kind": "bpe"}, 1),
    ],
)
def test_the_padding_token_is_found(tmp_path, files, options, pad):
    assert Tokenizer(tokenization.read(folder(tmp_path, files, **options))).pad_id == pad


def test_lower_case_where_the_folder_asks_for_it(tmp_path):
    plain = Tokenizer(tokenization.read(folder(tmp_path / "plain", kind="bpe")))
    lower = Tokenizer(
        tokenization.read(
            folder(tmp_path / "lower", {"sentence_bert_config.json": {"do_lower_case": True}}, kind="bpe")
        )
    )
    assert ids(lower, "The CAT") == ids(plain, "the cat") != ids(plain, "The CAT")
    both = Tokenizer(
        tokenization.read(folder(tmp_path / "both", {"sentence_bert_config.json": {"do_lower_case": True}}))
    )
    assert ids(both, "The CAT") == ids(both, "the cat")


def test_a_limit_without_room_for_text(tmp_path):
    with pytest.raises(ValueError, match="max_length=2 leaves no room for text"):
        Tokenizer(tokenization.read(folder(tmp_path)), 2)


@pytest.mark.parametrize("kind", ["sentence_bert_config.json", "tokenizer_config.json"])
def test_a_limit_of_the_folder_without_room_for_text(tmp_path, kind):
    field = {"sentence_bert_config.json": "max_seq_length", "tokenizer_config.json": "model_max_length"}[kind]
    settings = tokenization.read(folder(tmp_path, {kind: {field: 2}}))
    with pytest.raises(ModelLoadError, match="limit of 2 tokens, which leaves no room for text: this model adds 2"):
        Tokenizer(settings)
    assert Tokenizer(settings, 3).max_length == 3


def test_a_limit_beyond_the_models_positions(tmp_path):
    place = folder(tmp_path, {"config.json": {"max_position_embeddings": 130, "model_type": "roberta"}})
    assert Tokenizer(tokenization.read(place), 128).max_length == 128
    with pytest.raises(ValueError, match="max_length=129 is more than this model has positions: 128"):
        Tokenizer(tokenization.read(place), 129)


def test_the_registrys_limit_is_lowered_to_what_a_given_folder_has(tmp_path):
    assert (
        Tokenizer(
            tokenization.read(folder(tmp_path, {"config.json": {"max_position_embeddings": 40}})),
            512,
            capped=True,
        ).max_length
        == 40
    )


def test_a_text_never_becomes_nothing(tmp_path):
    bare = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[PAD]": 0, "a": 1}, unk_token="[PAD]"))  # noqa: S106
    (tmp_path / "tokenizer.json").write_text(bare.to_str())
    assert ids(Tokenizer(tokenization.read(tmp_path)), "") == [[0]]


def test_ten_megabytes_are_cut_before_tokenizing(tmp_path):
    """The tokens are those of the whole text, in a fraction of the time."""
    place = folder(tmp_path)
    text = "the cat is fast and red " * 450_000
    assert len(text) > 10_000_000
    begin = time.perf_counter()
    found = ids(Tokenizer(tokenization.read(place), 128), text)
    assert time.perf_counter() - begin < patience(1)  # tokenizing it all takes ten
    reference = tokenizers.Tokenizer.from_file(str(place / "tokenizer.json"))
    reference.enable_truncation(128)
    assert found == [reference.encode(text[:100_000]).ids]


@pytest.mark.parametrize(
    "text",
    [
        "a" * 300_000,
        " " * 300_000 + "cat",
        "\n" * 300_000 + "hello world",
        "😀" * 100_000,
        ("x" * 50_000 + " ") * 4,
        "­" * 200_000 + "dog",
    ],
    ids=["one word", "spaces", "line ends", "emoji", "huge words", "soft hyphens"],
)
def test_the_cut_changes_no_token_of_strange_texts(tmp_path, text):
    place = folder(tmp_path)
    reference = tokenizers.Tokenizer.from_file(str(place / "tokenizer.json"))
    reference.enable_truncation(32)
    assert ids(Tokenizer(tokenization.read(place), 32), text) == [reference.encode(text).ids]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"model": 1}', b"\xff\xfe", b"<html>"])
def test_a_damaged_file_is_a_model_load_error(tmp_path, content):
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(ModelLoadError, match=r"tokenizer\.json"):
        Tokenizer(tokenization.read(tmp_path))


def test_no_tokenizer_at_all(tmp_path):
    with pytest.raises(ModelLoadError, match=r"There is no tokenizer\.json in "):
        Tokenizer(tokenization.read(tmp_path))


def test_a_config_that_is_no_json(tmp_path):
    with pytest.raises(ModelLoadError, match=r"config\.json: not valid JSON"):
        Tokenizer(tokenization.read(folder(tmp_path, {"config.json": b"{"})))


@pytest.mark.parametrize("words", [5, 6, 7, 5_000, 40_000])
def test_what_is_truncated_is_told(tmp_path, words):
    tokenizer = Tokenizer(tokenization.read(folder(tmp_path)), 8)
    assert tokenizer.is_truncated("cat " * words) == (words > 6)
    assert tokenizer.is_truncated(" " * 100_000 + "cat " * words) == (words > 6)


def test_of_a_pair_the_second_is_truncated(tmp_path):
    tokenizer = Tokenizer(tokenization.read(folder(tmp_path)), 10, "only_second")
    assert not tokenizer.is_truncated(("cat", "dog " * 6))
    assert tokenizer.is_truncated(("cat", "dog " * 7))


def test_tokens_are_told_where_they_stand(tmp_path):
    tokenizer = Tokenizer(tokenization.read(folder(tmp_path)), 4)
    text = "Hello, world " + "cat " * 20
    spans = tokenizer.spans(text, special=True)
    assert [spans[0].token, spans[-1].token] == ["[CLS]", "[SEP]"]
    assert spans[0].special
    bare = tokenizer.spans(text, special=False)
    assert bare == spans[1:-1]
    assert [text[span.start : span.stop] for span in bare] == ["Hello", ",", "world", *["cat"] * 20]
    assert all(tokenizer.token_to_id(span.token) == span.id for span in bare)


def test_truncation_on_the_left_keeps_the_end_of_huge_texts(tmp_path):
    place = folder(tmp_path, {"tokenizer_config.json": {"truncation_side": "left"}})
    tokenizer = Tokenizer(tokenization.read(place), 8)
    huge = "cat " * 300_000 + "the dog is red and fast"
    end = ids(tokenizer, "the dog is red and fast")[0]
    start = time.perf_counter()
    assert ids(tokenizer, huge)[0] == end
    assert ids(tokenizer, " " * 2_000_000 + "the dog is red and fast")[0] == end
    assert time.perf_counter() - start < patience(5)
    assert ids(tokenizer, ("cat " * 40, "dog"))[0][-4:] == ids(tokenizer, ("cat", "dog"))[0][-4:]


@pytest.mark.parametrize(
    ("stated", "strips"),
    [
        ({"__version__": {"sentence_transformers": "5.3.0"}}, True),
        ({"__version__": {"sentence_transformers": "6.2.0"}}, False),
        ({"model_type": "ColBERT"}, True),
        ({}, False),
    ],
)
def test_white_space_at_the_ends_is_removed_as_by_the_version_that_saved_the_folder(tmp_path, stated, strips):
    place = folder(tmp_path, {"config_sentence_transformers.json": stated}, kind="bpe")
    padded, plain = ids(Tokenizer(tokenization.read(place), 64), " cat ", "cat")
    assert (padded == plain) is strips


def test_positions_begin_behind_the_padding_token(tmp_path):
    config = {"model_type": "roberta", "max_position_embeddings": 40, "pad_token_id": 3}
    assert tokenization.read(folder(tmp_path, {"config.json": config})).positions == 36


@pytest.mark.parametrize("token_id", [2**31, 2**32 - 1])
def test_an_id_that_no_vocabulary_has(tmp_path, token_id):
    content = json.loads(tiny_models.tiny_tokenizer())
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [token_id], "tokens": ["[CLS]"]}},
    }
    tokenizer = Tokenizer(tokenization.read(folder(tmp_path, {"tokenizer.json": json.dumps(content).encode()})))
    with pytest.raises(ModelLoadError, match=rf"tokenizer.json gives a token the id {token_id}"):
        tokenizer.encode(["hello"])
