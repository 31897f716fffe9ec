"""sentence-transformers modules as a head: a tiny cross-encoder made like cross-encoder/ettin-reranker-*."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import support
from support.checkpoints import write_tensors

from fastrank import ModelSource, TextCrossEncoder
from fastrank.engine import modules
from fastrank.errors import ModelLoadError
from fastrank.models import registry, sentence_transformers

FIXTURE = support.FIXTURES / "modules"
EXPECTED = json.loads((FIXTURE / "expected.json").read_text())


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(FIXTURE, tmp_path / "folder", copy_function=shutil.copyfile))


def load(folder):
    TextCrossEncoder.add_custom_model("acme/modules", ModelSource(hf="a/b"), modules=True, max_length=128)
    return TextCrossEncoder("acme/modules", specific_model_path=folder)


def test_scores_equal_sentence_transformers(folder):
    """`expected.json` is of sentence-transformers 6.2's CrossEncoder (scripts/make_modules_fixture.py)."""
    model = load(folder)
    pairs = [tuple(pair) for pair in EXPECTED["pairs"]]
    np.testing.assert_allclose(list(model.rerank_pairs(pairs)), EXPECTED["scores"], atol=1e-5)
    for pair, score in zip(pairs, EXPECTED["scores"], strict=True):
        assert next(model.rerank_pairs(pair)) == pytest.approx(score, abs=1e-5)


def test_the_ettin_family_runs_this_way():
    names = [spec.name for spec in registry.entries("cross-encoder") if spec.tasks["cross-encoder"].modules]
    assert names == [f"cross-encoder/ettin-reranker-{size}-v1" for size in ("17m", "32m", "68m", "150m")]
    with TextCrossEncoder("cross-encoder/ettin-reranker-17m-v1", specific_model_path=FIXTURE, max_length=128) as model:
        assert next(model.rerank_pairs(tuple(EXPECTED["pairs"][0]))) == pytest.approx(EXPECTED["scores"][0], abs=1e-5)


def test_gelu_is_the_exact_one():
    x = np.linspace(-6, 6, 2001, dtype=np.float32)
    exact = [value * (1 + math.erf(value / math.sqrt(2))) / 2 for value in x.tolist()]
    np.testing.assert_allclose(modules._gelu(x), exact, atol=1e-6)


def test_poolings_in_the_old_form_and_normalize(folder):
    (folder / "1_Pooling" / "config.json").write_text(
        '{"pooling_mode_mean_tokens": true, "pooling_mode_cls_token": false}'
    )
    listed = json.loads((folder / "modules.json").read_text())
    listed[2:] = [{"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}]
    (folder / "modules.json").write_text(json.dumps(listed))
    chain = sentence_transformers.pooled(folder)
    head = modules.head(chain)
    assert (chain.dim, chain.normalize) == (32, True)
    from fastrank.engine.batching import Batch

    states = np.arange(96, dtype=np.float32).reshape(1, 3, 32)
    mask = np.array([[1, 1, 0]])
    rows = head(states, Batch([0], mask, mask, mask))
    np.testing.assert_allclose(rows[0], states[0, :2].mean(axis=0), rtol=1e-6)
    with pytest.raises(ModelLoadError, match="Pooling returns 4 features per text; the model's files say 32"):
        head(states[:, :, :4], Batch([0], mask, mask, mask))


def edit(folder, file, **fields):
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**content, **fields}))


def rewrite(folder, change):
    listed = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps(change(listed)))


def row(kind, path):
    return {"idx": 9, "name": "9", "path": path, "type": f"sentence_transformers.models.{kind}"}


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda f: (f / "modules.json").unlink(), r"modules\.json does not begin with Transformer"),
        (lambda f: (f / "modules.json").write_text("{"), r"modules\.json: not valid JSON"),
        (lambda f: rewrite(f, lambda _: {}), "is no list of 1 to 32 modules"),
        (lambda f: rewrite(f, lambda m: m[1:]), "does not begin with Transformer and Pooling"),
        (lambda f: rewrite(f, lambda m: [*m[:2], {"idx": 2}]), "a module without type or path"),
        (lambda f: rewrite(f, lambda m: m * 20), "no list of 1 to 32 modules"),
        (
            lambda f: rewrite(f, lambda m: [*m, row("LSTM", "5_LSTM")]),
            "module 'LSTM' is not supported; supported: Pooling",
        ),
        (lambda f: rewrite(f, lambda m: [*m[:2], row("Dense", "../evil")]), "leads out of the folder"),
        (lambda f: rewrite(f, lambda m: [*m[:2], row("Dense", "/etc")]), "leads out of the folder"),
        (lambda f: rewrite(f, lambda m: [*m[:2], row("Dense", 7)]), "a module without type or path"),
        (lambda f: rewrite(f, lambda m: [*m[:2], row("Dense", "\0")]), r"the path '\\x00' is invalid"),
        (
            lambda f: rewrite(f, lambda m: [{**m[0], "type": "custom_st.Transformer"}, *m[1:]]),
            "'custom_st.Transformer' is not one of sentence-transformers but code of the repository's own",
        ),
        (
            lambda f: edit(f, "1_Pooling/config.json", pooling_mode="median"),
            r"pooling \['median'\] is not supported; supported: cls, max, mean",
        ),
        (lambda f: edit(f, "1_Pooling/config.json", pooling_mode=[]), "pooling \\[\\] is not supported"),
        (lambda f: edit(f, "1_Pooling/config.json", pooling_mode=[["cls"]]), "supported: cls"),
        (lambda f: edit(f, "1_Pooling/config.json", pooling_mode=["cls", "cls"]), "names a mode twice"),
        (
            lambda f: edit(f, "1_Pooling/config.json", include_prompt="no"),
            "'include_prompt' is 'no'; supported: True, False",
        ),
        (lambda f: edit(f, "1_Pooling/config.json", embedding_dimension=-1), "'embedding_dimension' is -1"),
        (
            lambda f: edit(f, "1_Pooling/config.json", embedding_dimension=16),
            "'in_features' is 32; the module before it returns",
        ),
        (
            lambda f: edit(f, "2_Dense/config.json", activation_function="os.system"),
            "'activation_function' is 'os.system'; supported",
        ),
        (lambda f: edit(f, "4_Dense/config.json", use_residual=True), "has no tensor residual.weight"),
        (lambda f: edit(f, "2_Dense/config.json", module_input_name="token_embeddings"), "'module_input_name'"),
        (lambda f: edit(f, "2_Dense/config.json", out_features=10**9), "'out_features' is 1000000000; expected"),
        (
            lambda f: edit(f, "2_Dense/config.json", out_features=64),
            "'dimension' is 32; the module before it returns 64",
        ),
        (
            lambda f: edit(f, "3_LayerNorm/config.json", dimension=31),
            "'dimension' is 31; the module before it returns 32",
        ),
        (lambda f: edit(f, "2_Dense/config.json", bias=True), r"has no tensor linear\.bias"),
        (lambda f: (f / "4_Dense" / "model.safetensors").write_bytes(b"short"), "model.safetensors"),
        (lambda f: (f / "4_Dense" / "model.safetensors").rename(f / "4_Dense" / "pytorch_model.bin"), "a pickle"),
    ],
)
def test_damaged_folders_are_refused(folder, damage, says):
    damage(folder)
    with pytest.raises(ModelLoadError, match=says):
        load(folder)


@pytest.mark.parametrize("outer", [32, 24])
def test_a_residual_adds_the_input(tmp_path, outer):
    dice = np.random.default_rng(0)
    names = {"linear.weight": (outer, 32), "linear.bias": (outer,), "residual.weight": (outer, 32)}
    tensors = {name: dice.normal(size=shape).astype(np.float32) for name, shape in names.items()}
    write_tensors(tmp_path, {name: ("F32", value.shape, value.tobytes()) for name, value in tensors.items()})
    dense = sentence_transformers.Dense(tmp_path, 32, outer, bias=True, residual=True, activation="tanh")
    rows = dice.normal(size=(5, 32)).astype(np.float32)
    straight = np.tanh(rows @ tensors["linear.weight"].T + tensors["linear.bias"])
    added = rows if outer == 32 else rows @ tensors["residual.weight"].T
    np.testing.assert_allclose(modules.function([dense])(rows), straight + added, atol=1e-5)
