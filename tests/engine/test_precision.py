"""int8: what it computes, that a vector does not depend on its neighbours, and where the quantized checkpoint lies."""

import os
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest
import support
import tokenizers
from conftest import REAL
from support.processes import run_python
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

import fastrank
from fastrank import ModelSource, PoolingType, SparseTextEmbedding, TextCrossEncoder, TextEmbedding, graph
from fastrank.engine import cpu, precision
from fastrank.engine import quantize as quantizing
from fastrank.engine.batching import Batch, Tokens
from fastrank.engine.options import Device, Options
from fastrank.engine.session import Model, Session
from fastrank.graph import blocks as blocks_of_graph
from fastrank.graph import onnx_proto
from fastrank.graph.safetensors import read_header
from fastrank.store import derived

FIXTURES = support.FIXTURES / "graph"
NAMES = sorted(folder.name for folder in FIXTURES.iterdir() if (folder / "model.safetensors").is_file())
HEADS = {
    "masked_lm": "masked-lm",
    "classifier": "sequence-classification",
    "cls": "sequence-classification",
    "logit_score": "logit-score",
}
NAME = "acme/tiny"


class Letters:
    """Stands for a tokenizer: a token a character, within any vocabulary."""

    pad_id = 0

    def __init__(self, size=60):
        self._size = size

    def encode(self, texts):
        return [
            Tokens(np.array([5 + ord(letter) % (self._size - 5) for letter in text[:30]], np.int32)) for text in texts
        ]


def head_of(name):
    return next((head for end, head in HEADS.items() if name.endswith(end)), "encoder")


def batch(ids):
    ids = np.asarray(ids, np.int64)
    return Batch(range(len(ids)), ids, np.ones_like(ids), np.zeros_like(ids))


def outputs(folder, head, ids, *, checkpoint=None, rounding=None):
    path = checkpoint or folder / "model.safetensors"
    rounding = rounding or graph.ActivationQuantization()
    build = lambda: graph.build(folder, head, weights=checkpoint, activations=rounding, score_tokens=(9, 4))  # noqa: E731
    return Session(Model(path, build), Options(threads=1, cuda=Device.CPU)).run(batch(ids), graph.OUTPUT[head])


def alike(found, expected):
    """The cosine of two arrays as a whole."""
    found, expected = (np.asarray(each, np.float64).ravel() for each in (found, expected))
    return found @ expected / np.linalg.norm(found) / np.linalg.norm(expected)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("per_token", "form"), [(True, "int8"), (False, "int8"), (True, "uint8")])
def test_every_architecture_in_int8_is_near_itself(name, per_token, form, tmp_path, monkeypatch):
    monkeypatch.setattr(quantizing, "_measured", lambda *_: None)  # what this does here
    folder, rounding = FIXTURES / name, graph.ActivationQuantization(per_token=per_token)
    for head in {"encoder", head_of(name)}:
        quantizing.quantize(folder / "model.safetensors", head, Letters(40), tmp_path / "int8", form=form)
        ids = [[7, 9, 23, 11, 30, 2, 8]]
        expected = outputs(folder, head, ids)
        found = outputs(folder, head, ids, checkpoint=tmp_path / "int8", rounding=rounding)
        assert found.shape == expected.shape
        assert not np.array_equal(found, expected)  # it is int8
        if head in ("logit-score", "sequence-classification"):  # too few numbers for an angle
            np.testing.assert_allclose(found, expected, atol=0.2)
        else:
            assert alike(found, expected) > 0.995


@pytest.mark.parametrize("name", ["bert", "modernbert_masked_lm", "nomic_bert_classifier"])
def test_the_int8_file_stands_alone(name, tmp_path):
    folder, head = FIXTURES / name, head_of(name)
    quantizing.quantize(folder / "model.safetensors", head, Letters(40), tmp_path / "int8")
    made = read_header(tmp_path / "int8")
    recipe = graph.recipe(folder, head)
    for site in recipe.matmul_groups:
        for weight in site:
            assert made[weight].dtype == "I8"
            assert made[weight].shape == recipe.tensors[weight].shape[::-1]
    assert set(recipe.tensors) == {
        name.removesuffix(".rows") for name in made if not name.endswith((".scale", ".smooth"))
    }


def test_weights_are_rounded_to_the_nearest_of_127_steps(tmp_path):
    folder = FIXTURES / "bert"
    quantizing.quantize(folder / "model.safetensors", "encoder", Letters(), tmp_path / "int8")
    made, stored = read_header(tmp_path / "int8"), read_header(folder / "model.safetensors")
    name = "encoder.layer.0.attention.self.query.weight"

    def values(path, header, key, dtype):
        tensor = header[key]
        return np.fromfile(path, dtype, int(np.prod(tensor.shape)), offset=tensor.offset).reshape(tensor.shape)

    weight = values(folder / "model.safetensors", stored, name, np.float32)
    steps = values(tmp_path / "int8", made, name, np.int8).T.astype(np.float32)
    scale = values(tmp_path / "int8", made, f"{name}.scale", np.float32)
    smooth = values(tmp_path / "int8", made, f"{name}.smooth", np.float32)
    assert np.abs(steps).max(axis=1).tolist() == [127] * len(steps)
    assert (np.abs(steps * scale[:, None] * smooth - weight) <= 0.5001 * scale[:, None] * smooth).all()


def test_values_that_several_weights_multiply_are_smoothed_alike(tmp_path):
    recipe = graph.recipe(FIXTURES / "bert")
    layer = "encoder.layer.0.attention.self"
    assert (f"{layer}.query.weight", f"{layer}.key.weight", f"{layer}.value.weight") in recipe.smoothed_groups
    quantizing.quantize(FIXTURES / "bert" / "model.safetensors", "encoder", Letters(), tmp_path / "int8")
    made, content = read_header(tmp_path / "int8"), (tmp_path / "int8").read_bytes()
    smooth = {
        content[tensor.offset : tensor.offset + tensor.length]
        for name, tensor in made.items()
        if name.startswith(layer) and name.endswith(".smooth")
    }
    assert len(smooth) == 1
    assert not any("output.dense" in name for name in made if name.endswith(".smooth"))


def test_a_table_of_words_is_looked_up_in_int8(tmp_path, monkeypatch):
    monkeypatch.setattr(quantizing, "_LARGE_TABLE", 50)
    folder = FIXTURES / "bert"
    quantizing.quantize(folder / "model.safetensors", "encoder", Letters(), tmp_path / "int8")
    assert read_header(tmp_path / "int8")["embeddings.word_embeddings.weight.rows"].dtype == "I8"
    ids = [[5, 6, 7], [8, 9, 10]]
    assert alike(outputs(folder, "encoder", ids, checkpoint=tmp_path / "int8"), outputs(folder, "encoder", ids)) > 0.995


@pytest.mark.parametrize("name", ["bert", "modernbert_masked_lm", "xlm_roberta_classifier", "mpnet_classifier"])
def test_a_text_has_the_same_bits_alone_and_among_others(name, tmp_path):
    """Others of its length, that is: no padding is what `schedule.plan(equal=True)` is for."""
    folder, head = FIXTURES / name, head_of(name)
    quantizing.quantize(folder / "model.safetensors", head, Letters(40), tmp_path / "int8")
    build = lambda: graph.build(folder, head, weights=tmp_path / "int8")  # noqa: E731
    session = Session(Model(tmp_path / "int8", build), Options(threads=2, cuda=Device.CPU))
    dice = np.random.default_rng(3)
    for length in (1, 2, 7, 19):
        ids = dice.integers(5, 40, (6, length))
        together = session.run(batch(ids), graph.OUTPUT[head], intra_op=False)
        for row in range(6):
            for wide in (True, False):
                alone = session.run(batch(ids[row : row + 1]), graph.OUTPUT[head], intra_op=wide)
                assert np.array_equal(alone[0], together[row])


# -- through the public classes -------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """A tiny checkpoint with a tokenizer."""
    target = tmp_path / "checkpoint"
    shutil.copytree(FIXTURES / "bert", target, copy_function=shutil.copyfile)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "and", "cat", "dog", "house", "ran", "red", "the", "to"]
    tokenizer = tokenizers.Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, "[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    tokenizer.save(str(target / "tokenizer.json"))
    return target


@pytest.fixture
def tiny_bert(folder):
    TextEmbedding.add_custom_model(
        NAME, PoolingType.MEAN, True, sources=ModelSource(hf=NAME), dim=32, model_file="model.safetensors"
    )
    return lambda **options: TextEmbedding(NAME, specific_model_path=folder, **options)


TEXTS = ["a red cat", "the dog", "", "a cat and a dog ran to the red house " * 3, "cat", "the cat", "dog", "a dog"]


@pytest.mark.parametrize("kind", ["int8", "int8-fast"])
def test_vectors_have_the_same_bits_in_any_order_and_batch(tiny_bert, kind):
    model = tiny_bert(precision=kind)
    expected = np.array([next(model.embed(text)) for text in TEXTS])
    for batch_size in (1, 2, 256):
        assert np.array_equal(np.array(list(model.embed(TEXTS, batch_size))), expected)
    assert np.array_equal(np.array(list(model.embed(TEXTS[::-1], parallel=2)))[::-1], expected)
    assert np.array_equal(np.array(list(tiny_bert(precision=kind, threads=1).embed(TEXTS))), expected)
    exact = np.array(list(tiny_bert().embed(TEXTS)))
    assert (exact * expected).sum(axis=1).min() > 0.98
    assert not np.array_equal(exact, expected)


def test_fp32_vectors_do_not_depend_on_the_batch(tiny_bert):
    model = tiny_bert(precision="fp32")
    alone = np.array([next(model.embed(text)) for text in TEXTS])
    np.testing.assert_allclose(np.array(list(model.embed(TEXTS))), alone, atol=1e-6)


def test_info_says_what_runs_and_why(tiny_bert):
    assert tiny_bert().info()["precision"] == "fp32"
    facts = tiny_bert(precision="int8", threads=1).info()
    assert "int8" in facts["precision"]
    assert facts["provider"] == "CPUExecutionProvider"
    assert facts["threads"] == 1
    assert "model.safetensors" in facts["reason"]
    assert "equal length" in facts["batching"]
    assert tiny_bert(precision="int8-fast").info()["batching"] == "one text per run"
    assert "BM25" in SparseTextEmbedding("Qdrant/bm25").info()["file"]


@pytest.fixture
def saturating(monkeypatch):
    """As on an x86 CPU without VNNI."""
    monkeypatch.setattr(precision, "adds_exactly", lambda: False)


@pytest.mark.parametrize("kind", ["int8", "int8-fast"])
def test_a_processor_whose_sums_saturate_gets_unsigned_weights(kind, tiny_bert, saturating):
    """A file of its own, all 8 bits of activations; int8-fast would gain nothing there."""
    model = tiny_bert(precision=kind)
    vectors, exact = (np.array(list(each.embed(TEXTS))) for each in (model, tiny_bert()))
    assert (vectors * exact).sum(axis=1).min() > 0.98
    file = Path(model.info()["file"])
    assert file.name.startswith("uint8-encoder-")
    weights = {tensor.dtype for name, tensor in read_header(file).items() if name.endswith("query.weight")}
    assert weights == {"U8"}
    assert "scaled per token" in model.info()["precision"]
    assert "equal length" in model.info()["batching"]
    assert ("int8-fast would be no faster" in model.info()["reason"]) == (kind == "int8-fast")


@pytest.mark.skipif(not precision.adds_exactly(), reason="signed weights saturate on this CPU")
def test_unsigned_weights_are_the_same_numbers(tiny_bert, monkeypatch):
    signed = np.array(list(tiny_bert(precision="int8").embed(TEXTS)))
    monkeypatch.setattr(precision, "adds_exactly", lambda: False)
    assert np.array_equal(np.array(list(tiny_bert(precision="int8").embed(TEXTS))), signed)


@pytest.mark.parametrize("packed_there", [True, False], ids=["with VNNI", "without"])
def test_a_packed_model_is_changed_where_products_are_added_in_another_way(
    packed_there, tiny_bert, folder, monkeypatch
):
    monkeypatch.setattr(precision, "adds_exactly", lambda: packed_there)
    first = tiny_bert(precision="int8")
    expected = np.array(list(first.embed(TEXTS)))
    packed = folder / Path(first.info()["file"]).name
    shutil.copyfile(first.info()["file"], packed)
    (folder / "model.safetensors").unlink()
    TextEmbedding.add_custom_model("acme/packed", PoolingType.MEAN, True, ModelSource(hf=NAME), 32, packed.name)
    for there in (packed_there, not packed_there):
        monkeypatch.setattr(precision, "adds_exactly", lambda there=there: there)
        model = TextEmbedding("acme/packed", specific_model_path=folder)
        assert Path(model.info()["file"]).name.startswith("int8-" if there else "uint8-")
        if cpu.adds_bytes_exactly() or not there:
            assert np.array_equal(np.array(list(model.embed(TEXTS))), expected)
    assert read_header(packed)["encoder.layer.0.attention.self.query.weight"].dtype == ("I8" if packed_there else "U8")


def test_info_says_where_int8_saves_memory_only(tiny_bert, monkeypatch):
    for exact in (False, True):
        monkeypatch.setattr(precision, "adds_exactly", lambda exact=exact: exact)
        reason = tiny_bert(precision="int8").info()["reason"]
        assert ("it saves memory only" in reason) is not exact


def test_the_trial_of_products_finds_saturation(monkeypatch):
    precision.adds_exactly.cache_clear()
    stated = precision.adds_exactly()
    precision.adds_exactly.cache_clear()
    known = cpu.adds_bytes_exactly()
    monkeypatch.setattr(cpu, "adds_bytes_exactly", lambda: None)
    assert precision.adds_exactly() in ((stated,) if known else (False, True))
    precision.adds_exactly.cache_clear()
    monkeypatch.setattr(Session, "run", lambda *_: np.full((64, 64), 64 * 32767 / 2, np.float32))
    assert precision.adds_exactly() is False
    precision.adds_exactly.cache_clear()


@pytest.mark.parametrize("form", ["int8", "uint8"])
def test_how_near_it_is_was_measured_and_is_said(form, tmp_path, tiny_bert, folder):
    quantizing.quantize(folder / "model.safetensors", "encoder", Letters(), tmp_path / "made", form=form)
    near = quantizing.nearness(tmp_path / "made")
    assert 0.99 < near.least < near.mean < 1
    quantizing.change_sign(tmp_path / "made", tmp_path / "other")
    assert quantizing.nearness(tmp_path / "other") == near
    quantizing.change_sign(tmp_path / "other", tmp_path / "again")
    assert (tmp_path / "again").read_bytes()[-1000:] == (tmp_path / "made").read_bytes()[-1000:]
    model = tiny_bert(precision="int8")
    stated = quantizing.nearness(Path(model.info()["file"])).mean
    assert f"{stated:.4f} the cosine of its token states to fp32" in model.info()["reason"]


# -- four bits ------------------------------------------------------------------------------------------------------

DECODERS = [name for name in NAMES if name.startswith(("qwen", "gemma"))]


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("rounded", [True, False])
def test_every_decoder_in_int4_is_near_itself(name, rounded, tmp_path, monkeypatch):
    """Not very near: of 32 features, whose errors are those of 32 numbers, not of a thousand."""
    monkeypatch.setattr(quantizing, "_measured", lambda *_: None)  # what this does here
    folder = FIXTURES / name
    for head in {"encoder", head_of(name)}:
        quantizing.quantize(folder / "model.safetensors", head, Letters(40), tmp_path / "int4", form="int4")
        ids = [[7, 9, 23, 11, 30, 2, 8]]
        expected = outputs(folder, head, ids)
        rounding = graph.ActivationQuantization(of_int4=rounded)
        found = outputs(folder, head, ids, checkpoint=tmp_path / "int4", rounding=rounding)
        if head in ("logit-score", "sequence-classification"):
            np.testing.assert_allclose(found, expected, atol=0.5)
        else:
            assert 0.85 < alike(found, expected) < 0.99999


@pytest.mark.parametrize(("size_in", "size_out"), [(32, 3), (96, 5), (100, 4), (8, 2), (128, 32)])
def test_a_product_in_int4_is_that_of_the_numbers_in_the_file(size_in, size_out, tmp_path):
    """Unpacked by hand; every number is at most half a step of its block from the weight, but for what is cut off."""
    weight = np.random.default_rng(0).standard_normal((size_out, size_in)).astype(np.float32)
    packed, scale, zero = quantizing.in_blocks(weight)
    blocks = -(-size_in // 32)
    steps = np.stack([packed & 15, packed >> 4], axis=-1).reshape(size_out, blocks, 32).astype(np.float32)
    pairs = zero.reshape(size_out, -1)
    zeros = np.stack([pairs & 15, pairs >> 4], axis=-1).reshape(size_out, -1)[:, :blocks]
    scales = scale.reshape(size_out, blocks)
    rounded = ((steps - zeros[..., None]) * scales[..., None]).reshape(size_out, -1)[:, :size_in]
    widest = np.repeat(scales, 32, axis=1)[:, :size_in]
    assert (np.abs(rounded - weight) <= 2.6 * widest).all()
    assert np.square(rounded - weight).mean() < 0.01

    pieces = {"w.int4": ("U8", packed), "w.zero": ("U8", zero), "w.scale": ("F32", scale)}
    file = tmp_path / "w.safetensors"
    quantizing.write(((name, *piece) for name, piece in pieces.items()), file, pieces)
    built = graph.builder.Graph(file, read_header(file))
    x = built.op("Cast", built.input("input_ids", onnx_proto.INT64, ["rows", "width"]), to=onnx_proto.FLOAT)
    built.output(
        "y", blocks_of_graph.product(built, x, "w", None, size_in, size_out), onnx_proto.FLOAT, ["rows", "out"]
    )
    x = np.random.default_rng(1).integers(-9, 9, (7, size_in))
    found = Session(Model(file, built.to_bytes), Options(threads=1, cuda=Device.CPU)).run(batch(x))
    np.testing.assert_allclose(found, x @ rounded.T, atol=1e-3)


@pytest.fixture
def tiny_qwen(tmp_path, folder):
    target = tmp_path / "qwen"
    shutil.copytree(FIXTURES / "qwen3", target, copy_function=shutil.copyfile)
    shutil.copyfile(folder / "tokenizer.json", target / "tokenizer.json")
    TextEmbedding.add_custom_model(
        "acme/qwen", PoolingType.LAST_TOKEN, True, sources=ModelSource(hf=NAME), dim=32, model_file="model.safetensors"
    )
    return lambda **options: TextEmbedding("acme/qwen", specific_model_path=target, **options)


@pytest.mark.parametrize("exact", [True, False])
def test_int4_through_the_public_class(exact, tiny_qwen, monkeypatch):
    monkeypatch.setattr(precision, "adds_exactly", lambda: exact)
    model = tiny_qwen(precision="int4")
    vectors, expected = (np.array(list(each.embed(TEXTS))) for each in (model, tiny_qwen()))
    assert 0.85 < (vectors * expected).sum(axis=1).min() < 0.9999
    alone = np.array([next(model.embed(text)) for text in TEXTS])
    np.testing.assert_allclose(vectors, alone, atol=1e-5)
    facts = model.info()
    assert Path(facts["file"]).name.startswith("int4-encoder-")
    assert facts["precision"] == f"int4, activations {'rounded to 8 bits in blocks' if exact else 'in fp32'}"
    assert facts["provider"] == "CPUExecutionProvider"


def test_int4_of_an_encoder_is_refused_with_what_to_do(tiny_bert):
    with pytest.raises(ValueError, match=r"for decoders \(gemma3_text, qwen2, qwen3\).*type 'bert'.*precision='int8'"):
        tiny_bert(precision="int4")
    with pytest.raises(ValueError, match="for the CPU"):
        tiny_bert(precision="int4", cuda=True)
    with pytest.raises(ValueError, match=r"no files for precision='int4'.*It has: "):
        TextEmbedding("BAAI/bge-small-zh-v1.5", precision="int4", lazy_load=True)


def test_a_large_model_is_in_memory_once(tiny_bert, monkeypatch):
    expected = np.array(list(tiny_bert(threads=2).embed(TEXTS)))
    monkeypatch.setattr("fastrank.engine.session._LARGE", 1000)
    opened = []
    load = Session._load
    monkeypatch.setattr(Session, "_load", lambda self, *options: opened.append(options) or load(self, *options))
    model = tiny_bert(threads=2)
    np.testing.assert_allclose(np.array(list(model.embed(TEXTS, parallel=2))), expected, atol=1e-6)
    assert [threads for _, threads in opened] == [2]


def test_the_int8_checkpoint_is_made_once_and_anew_for_another_checkpoint(tiny_bert, folder, tmp_path, monkeypatch):
    cache = Path(os.environ["FASTRANK_CACHE"])
    next(tiny_bert(precision="int8").embed("cat"))
    (made,) = cache.rglob("int8-*.safetensors")
    assert folder not in made.parents  # not ours to write into
    stamp = made.stat().st_mtime_ns
    with monkeypatch.context() as patch:
        patch.setattr(quantizing, "quantize", None)  # would fail if it were called
        next(tiny_bert(precision="int8-fast").embed("cat"))
    assert made.stat().st_mtime_ns == stamp
    os.utime(folder / "model.safetensors", ns=(1, 1))
    next(tiny_bert(precision="int8").embed("cat"))
    assert len(list(cache.rglob("int8-*.safetensors"))) == 2
    assert not list(cache.rglob("making-*"))


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(folder, tmp_path):
    """In a process of its own: what it keeps meanwhile goes with it."""
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the cache should be")
    program = (
        "from fastrank import *; import sys\n"
        f"source = ModelSource(hf={NAME!r})\n"
        f"TextEmbedding.add_custom_model({NAME!r}, PoolingType.MEAN, True, source, 32, 'model.safetensors')\n"
        f"model = TextEmbedding({NAME!r}, specific_model_path={str(folder)!r}, precision='int8')\n"
        "print(next(model.embed('cat')).shape, model.info()['file'])"
    )
    environment = {**os.environ, "FASTRANK_CACHE": str(blocked), "TMPDIR": str(tmp_path), "PYTHONWARNINGS": "error"}
    done = run_python("-c", program, env=environment, check=True)
    shape, file = done.stdout.strip().split(") ")
    assert shape == "(32,"
    assert not Path(file).exists()  # removed at the end


def test_a_model_in_the_cache_has_it_beside_itself(hub, folder):
    hub.add_repo(NAME, {path.name: path.read_bytes() for path in folder.iterdir()})
    TextEmbedding.add_custom_model(NAME, PoolingType.MEAN, True, ModelSource(hf=NAME), 32, "model.safetensors")
    file = Path(TextEmbedding(NAME, precision="int8").info()["file"])
    assert file.parent.name == "derived"
    assert (file.parent.parent / "model.safetensors").is_file()


def test_of_an_open_repository_the_checkpoint_is_fetched(hub, folder):
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    hub.add_repo(NAME, files | {"onnx/model.onnx": b"not fetched"})
    TextEmbedding.add_custom_model(NAME, PoolingType.MEAN, True)
    model = TextEmbedding(NAME, precision="int8")
    assert "int8" in model.info()["precision"]
    assert next(model.embed("cat")).shape == (32,)


# -- what cannot be -------------------------------------------------------------------------------------------------


def test_precisions_that_are_none_or_not_there(tiny, tiny_bert):
    with pytest.raises(ValueError, match="precision must be one of"):
        tiny_bert(precision="int3")
    with pytest.raises(ValueError, match="for the CPU"):
        tiny_bert(precision="int8", cuda=True)
    with pytest.raises(ValueError, match="for the CPU"):
        tiny_bert(precision="int8", providers=["CPUExecutionProvider"])
    with pytest.raises(ValueError, match=r"no files for precision='fp16'.*It has: .*fp32"):
        TextCrossEncoder("jinaai/jina-reranker-v1-tiny-en", precision="fp16", lazy_load=True)


@pytest.mark.parametrize("damage", [lambda content: content[:-100], lambda _content: b""])
def test_a_damaged_int8_file_is_made_anew(tiny_bert, damage):
    expected = next(tiny_bert(precision="int8").embed("cat"))
    (made,) = Path(os.environ["FASTRANK_CACHE"]).rglob("int8-*.safetensors")
    whole = made.read_bytes()
    made.write_bytes(damage(whole))
    assert np.array_equal(next(tiny_bert(precision="int8").embed("cat")), expected)
    assert made.read_bytes() == whole


def test_int8_does_not_depend_on_who_came_first(tiny_bert, monkeypatch, tmp_path):
    def first_with(max_length):
        monkeypatch.setenv("FASTRANK_CACHE", str(tmp_path / str(max_length)))
        tiny_bert(precision="int8", max_length=max_length)
        return next(tiny_bert(precision="int8").embed(TEXTS[3]))

    assert np.array_equal(first_with(4), first_with(30))


def test_another_shard_is_another_int8_checkpoint(folder, tmp_path):
    (folder / "model.safetensors.index.json").write_text("{}")
    before = derived._identity(folder / "model.safetensors.index.json")
    os.utime(folder / "model.safetensors", ns=(1, 1))
    assert derived._identity(folder / "model.safetensors.index.json") != before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_leaves_what_its_parent_keeps_meanwhile(monkeypatch):
    derived._temporary.cache_clear()
    folder = derived._temporary()
    derived._remove(folder, os.getpid() + 1)
    assert folder.is_dir()
    derived._remove(folder, os.getpid())
    assert not folder.exists()
    derived._temporary.cache_clear()


@pytest.mark.skipif(os.name == "nt", reason="POSIX modes")
def test_others_may_read_what_was_made(tiny_bert):
    tiny_bert(precision="int8")
    (made,) = Path(os.environ["FASTRANK_CACHE"]).rglob("int8-*.safetensors")
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(made.stat().st_mode) == 0o666 & ~umask


def test_a_folder_of_ones_own_runs_in_any_precision(folder):
    for kind in ("auto", "fp32", "fp16", "int8", "int8-fast"):
        model = TextEmbedding("any/name", specific_model_path=folder, pooling=PoolingType.MEAN, precision=kind)
        assert next(model.embed("cat")).shape == (32,)


def test_no_other_precision_than_asked_for(tiny_bert, folder):
    quantizing.quantize(folder / "model.safetensors", "encoder", Letters(13), folder / quantizing.file_name("encoder"))
    assert tiny_bert(precision="fp32").info()["precision"] == "fp32"
    assert tiny_bert().info()["precision"] == "fp32"
    assert "int8" in tiny_bert(precision="int8").info()["precision"]
    (folder / "model.safetensors").unlink()
    TextEmbedding(NAME, specific_model_path=folder, lazy_load=True)


@pytest.mark.real_model
def test_real_vectors_in_int8(real_model_folder):
    texts = (Path(fastrank.__file__).parent / "cli" / "films.txt").read_text().splitlines()
    exact = np.array(list(TextEmbedding(REAL, specific_model_path=real_model_folder).embed(texts)))
    for kind, least in (("int8", 0.998), ("int8-fast", 0.993)):
        found = np.array(list(TextEmbedding(REAL, specific_model_path=real_model_folder, precision=kind).embed(texts)))
        assert (found * exact).sum(axis=1).mean() > least
