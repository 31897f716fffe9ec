"""The tiny models do what their users in the other tests rely on."""

from __future__ import annotations

import json
import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnxruntime
import pytest
from tokenizers import Tokenizer

from support.tiny_models import (
    DIM,
    model_files,
    tiny_cross_encoder,
    tiny_encoder,
    tiny_pooled,
    tiny_tokenizer,
    vocabulary,
    write_model,
)

BUILDERS = (tiny_encoder, tiny_pooled, tiny_cross_encoder)


def tokenizer(*arguments, **options):
    return Tokenizer.from_str(tiny_tokenizer(*arguments, **options).decode())


def run(model, texts, *, pad_to=0, left=False, change=None):
    """Tokenize, pad, run; `change` may spoil the inputs before."""
    encodings = tokenizer().encode_batch(texts)
    length = max(pad_to, *(len(e.ids) for e in encodings))
    side = (lambda row: [0] * (length - len(row)) + row) if left else (lambda row: row + [0] * (length - len(row)))
    inputs = {
        "input_ids": np.array([side(e.ids) for e in encodings]),
        "attention_mask": np.array([side(e.attention_mask) for e in encodings]),
        "token_type_ids": np.array([side(e.type_ids) for e in encodings]),
    }
    if change:
        change(inputs)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, {i.name: inputs[i.name] for i in session.get_inputs()})[0]


class TestTokenizer:
    def test_wordpiece(self):
        encoding = tokenizer().encode("Héllo, cats zx9 ☃")
        assert encoding.tokens == ["[CLS]", "hello", ",", "cats", "z", "##x", "##9", "[UNK]", "[SEP]"]
        assert encoding.ids == [vocabulary().index(token) for token in encoding.tokens]

    def test_pair(self):
        encoding = tokenizer().encode("what", "cat dog")
        assert encoding.tokens == ["[CLS]", "what", "[SEP]", "cat", "dog", "[SEP]"]
        assert encoding.type_ids == [0, 0, 0, 1, 1, 1]

    def test_bpe(self):
        encoding = tokenizer("bpe").encode("A", "é")
        assert encoding.tokens == ["<s>", "A", "</s>", "</s>", "Ã", "©", "</s>"]
        assert encoding.ids[0] == 0
        assert tokenizer("bpe").token_to_id("<pad>") == 1

    @pytest.mark.parametrize(("kind", "pad"), [("wordpiece", "[PAD]"), ("bpe", "<pad>")])
    def test_baked_in_padding_and_truncation(self, kind, pad):
        baked = tokenizer(kind, padding=128, truncation=128)
        assert len(baked.encode("cat " * 500)) == 128
        assert baked.encode("cat").tokens[-1] == pad
        assert len(baked.encode("cat")) == 128
        assert len(tokenizer(kind).encode("cat " * 500)) > 500

    @pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
    def test_same_bytes_every_time(self, kind):
        assert tiny_tokenizer(kind) == tiny_tokenizer(kind)
        assert len(set(vocabulary(kind))) == len(vocabulary(kind))

    def test_unknown_kind(self):
        with pytest.raises(KeyError):
            tiny_tokenizer("unigram")


class TestModels:
    @pytest.mark.parametrize(
        ("model", "shape"),
        [
            (tiny_encoder(), (2, 4, DIM)),
            (tiny_encoder(24), (2, 4, 24)),
            (tiny_pooled(), (2, DIM)),
            (tiny_cross_encoder(), (2, 1)),
            (tiny_cross_encoder(3), (2, 3)),
        ],
    )
    def test_shape(self, model, shape):
        found = run(model, ["cat", "red dog"])
        assert (found.shape, found.dtype) == (shape, np.float32)

    @pytest.mark.parametrize("build", BUILDERS)
    def test_same_bytes_every_time_for_a_seed(self, build):
        assert build() == build(seed=0)
        assert build() != build(seed=1)

    @pytest.mark.parametrize("build", BUILDERS)
    def test_neither_padding_nor_neighbours_matter(self, build):
        alone = run(build(), ["cat and dog"])
        padded = run(build(), ["cat and dog", "hello " * 30], pad_to=50)[:1]
        if build is tiny_encoder:
            assert np.abs(padded[0, 5:]).min(axis=1).max() > 0  # padding has states of its own
            padded = padded[:, :5]
        np.testing.assert_allclose(padded, alone, atol=1e-5)

    @pytest.mark.parametrize("build", BUILDERS)
    @pytest.mark.parametrize(
        "change",
        [
            lambda inputs: inputs["attention_mask"].fill(1),
            lambda inputs: inputs["attention_mask"][:, 1].fill(0),
            lambda inputs: inputs["token_type_ids"].fill(1),
            lambda inputs: inputs["input_ids"][:, 2].fill(7),
            lambda inputs: inputs["input_ids"][:, 1:3].sort(),
        ],
    )
    def test_mistakes_in_the_inputs_show(self, build, change):
        right = run(build(), ["cat and dog"], pad_to=8)
        wrong = run(build(), ["cat and dog"], pad_to=8, change=change)
        assert np.abs(wrong - right).max() > 0.01

    def test_padding_on_the_left_shows(self):
        right = run(tiny_pooled(), ["cat and dog"], pad_to=8)
        assert np.abs(run(tiny_pooled(), ["cat and dog"], pad_to=8, left=True) - right).max() > 0.01

    def test_pooled_is_the_mean_of_the_states(self):
        states = run(tiny_encoder(), ["cat and dog"])
        np.testing.assert_allclose(run(tiny_pooled(), ["cat and dog"]), states.mean(axis=1), atol=1e-6)

    @pytest.mark.parametrize("build", BUILDERS)
    def test_nan_for_one_word_only(self, build):
        found = run(build(nan=True), ["cat", "nan", "dog"])
        assert [bool(np.isnan(row).any()) for row in found] == [False, True, False]
        assert np.isfinite(run(build(), ["nan"])).all()

    @pytest.mark.parametrize("build", BUILDERS)
    def test_without_segments(self, build):
        session = onnxruntime.InferenceSession(build(segments=False), providers=["CPUExecutionProvider"])
        assert [i.name for i in session.get_inputs()] == ["input_ids", "attention_mask"]

    def test_more_tokens_than_positions_is_an_error(self):
        model = tiny_pooled(max_positions=8)
        assert run(model, ["cat " * 6]).shape == (1, DIM)
        errors = onnxruntime.capi.onnxruntime_pybind11_state
        with pytest.raises(
            (errors.Fail, errors.InvalidArgument, errors.RuntimeException)
        ):  # depends on the version of onnxruntime
            run(model, ["cat " * 7])


class TestFolders:
    def test_files(self, tmp_path):
        folder = write_model(tmp_path / "a" / "b", tiny_pooled(), pad_token_id=3, vocab_size=None, extra="x")
        found = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        assert found == model_files(tiny_pooled(), pad_token_id=3, vocab_size=None, extra="x")
        assert found["onnx/model.onnx"] == tiny_pooled()
        assert json.loads(found["config.json"]) == {
            "model_type": "bert",
            "pad_token_id": 3,
            "max_position_embeddings": 512,
            "extra": "x",
        }

    def test_defaults_and_other_places(self):
        files = model_files(model_path="model.onnx", tokenizer=tiny_tokenizer("bpe"))
        assert files["model.onnx"] == tiny_encoder()
        assert files["tokenizer.json"] == tiny_tokenizer("bpe")
        assert model_files()["tokenizer.json"] == tiny_tokenizer()
