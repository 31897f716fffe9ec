"""Write tests/fixtures/modules, sentence_encoder, pair_classifier and sparse_encoder: tiny models and their outputs.

    pip install torch==2.13.0 transformers==5.23.0 sentence-transformers==6.2.0 onnx
    python scripts/make_modules_fixture.py

All are sentence-transformers models. `modules` is a cross-encoder made as cross-encoder/ettin-reranker-*: ModernBERT,
CLS pooling, Dense with GELU, LayerNorm, Dense to one score. `sentence_encoder` is BERT in fp16 with mean pooling,
Dense, Normalize, prompts and a limit of 12 tokens; `expected.json` has its vectors, and those after small changes of
its JSON files: one a pooling, and so on. `pair_classifier` is a cross-encoder and `sparse_encoder` a SPLADE model, both
of BERT. Weights are random with a fixed seed. Development only: nothing of this is needed to run the package or its
tests.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

import torch  # needed here only, so in no extra of the package, as the others
from sentence_transformers import (
    CrossEncoder,
    SentenceTransformer,
    SparseEncoder,
)
from sentence_transformers.base.modules import Dense, Transformer
from sentence_transformers.sentence_transformer.modules import (
    LayerNorm,
    Normalize,
    Pooling,
)
from sentence_transformers.sparse_encoder.modules import SpladePooling
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    ModernBertConfig,
    ModernBertModel,
    PreTrainedTokenizerFast,
)

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))
import tiny_models  # type: ignore[import-not-found]  # noqa: E402

FIXTURES = ROOT / "tests" / "fixtures"
HIDDEN = 32
PAIRS = [
    ("what is the capital of france", "paris is the capital of france"),
    ("cat", ""),
    ("fast red dog", "the cat is red and fast " * 12),
    ("hello world", "hello"),
]


SAVED = (
    *("config.json", "tokenizer.json", "tokenizer_config.json"),
    *("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"),
)
TEXTS = ["hello world", "", "The CAT is red", "rank the documents for a query " * 5, "paris"]

# Changes of JSON files by path: fields to set (None: to take out), or a list to put in its place.
TRANSFORMER, POOLING, DENSE, NORMALIZE = range(4)
CHANGES: dict[str, tuple[list[int], dict[str, dict[str, object]]]] = {
    "as saved": ([TRANSFORMER, POOLING, DENSE, NORMALIZE], {}),
    **{
        f"pooling {mode}": ([TRANSFORMER, POOLING], {"1_Pooling/config.json": {"pooling_mode": mode}})
        for mode in Pooling.POOLING_MODES
    },
    "two poolings": ([TRANSFORMER, POOLING, NORMALIZE], {"1_Pooling/config.json": {"pooling_mode": ["mean", "cls"]}}),
    "old fields": (
        [TRANSFORMER, POOLING],
        {
            "1_Pooling/config.json": {
                "pooling_mode": None,
                "embedding_dimension": None,
                "word_embedding_dimension": HIDDEN,
                "pooling_mode_lasttoken": True,
                "pooling_mode_cls_token": True,
                "pooling_mode_mean_tokens": False,
            }
        },
    ),
    **{
        f"activation {name}": (
            [TRANSFORMER, POOLING, DENSE],
            {"2_Dense/config.json": {"activation_function": f"torch.nn.modules.{name}"}},
        )
        for name in ("linear.Identity", "activation.ReLU", "activation.GELU")
    },
    **{
        f"limit {limit}": ([TRANSFORMER, POOLING], {"sentence_bert_config.json": {"max_seq_length": limit}})
        for limit in (7, 20)
    },
    "no limit": ([TRANSFORMER, POOLING], {"tokenizer_config.json": {"model_max_length": None}}),
    "no prompts": ([TRANSFORMER, POOLING], {"config_sentence_transformers.json": {"prompts": {}}}),
}


def write_base(folder: Path, model: object, positions: int, *inputs: str) -> None:
    """A transformer with its tokenizer, as transformers saves them; `inputs` are those beside ids and mask."""
    model.save_pretrained(folder)  # type: ignore[attr-defined]
    (folder / "tokenizer.json").write_bytes(tiny_models.tiny_tokenizer())
    PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"),
        **{f"{name}_token": f"[{name.upper()}]" for name in ("pad", "cls", "sep", "unk", "mask")},
        model_max_length=positions,
        model_input_names=["input_ids", "attention_mask", *inputs],
    ).save_pretrained(folder)


def copy(saved: Path, target: Path, names: tuple[str, ...]) -> None:
    """All weights, and the files with these names."""
    shutil.rmtree(target, ignore_errors=True)
    for path in saved.rglob("*"):
        if path.suffix == ".safetensors" or path.name in names:
            (target / path.relative_to(saved)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target / path.relative_to(saved))


def write_expected(target: Path, content: object) -> None:
    """The outputs, beside the model."""
    (target / "expected.json").write_text(json.dumps(content) + "\n", encoding="utf-8")


def cross_encoder(scratch: Path) -> None:
    """Write tests/fixtures/modules."""
    torch.manual_seed(0)
    config = ModernBertConfig(
        vocab_size=len(tiny_models.vocabulary()),
        hidden_size=HIDDEN,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=128,
        local_attention=16,
        pad_token_id=0,
        cls_token_id=4,
        sep_token_id=5,
    )
    write_base(scratch / "base", ModernBertModel(config), 128)
    modules = [
        Transformer(str(scratch / "base"), transformer_task="feature-extraction"),
        Pooling(HIDDEN, pooling_mode="cls"),
        Dense(HIDDEN, HIDDEN, bias=False, activation_function=torch.nn.GELU()),
        LayerNorm(HIDDEN),
        Dense(HIDDEN, 1, activation_function=torch.nn.Identity(), module_output_name="scores"),
    ]
    for weights in (modules[2].linear.weight, modules[3].norm.weight, modules[3].norm.bias, modules[4].linear.weight):
        torch.nn.init.normal_(weights)  # so that scores differ
    model = CrossEncoder(modules=modules)
    model.save_pretrained(str(scratch / "saved"))
    scores = model.predict(PAIRS, activation_fn=torch.nn.Identity()).reshape(-1).tolist()
    copy(scratch / "saved", FIXTURES / "modules", ("config.json", "modules.json", "tokenizer.json"))
    write_expected(FIXTURES / "modules", {"pairs": PAIRS, "scores": scores})


def bert(**options: int) -> BertConfig:
    """One layer; and the same weights every time."""
    torch.manual_seed(0)
    return BertConfig(
        vocab_size=len(tiny_models.vocabulary()),
        hidden_size=HIDDEN,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        max_position_embeddings=64,
        initializer_range=0.2,
        **options,
    )


def pair_classifier(scratch: Path) -> None:
    """Write tests/fixtures/pair_classifier."""
    write_base(scratch / "base", BertForSequenceClassification(bert(num_labels=1)), 64, "token_type_ids")
    CrossEncoder(str(scratch / "base")).half().save_pretrained(str(scratch / "saved"))
    copy(scratch / "saved", FIXTURES / "pair_classifier", SAVED)
    model = CrossEncoder(str(scratch / "saved"), model_kwargs={"dtype": torch.float32})
    scores = model.predict(PAIRS, activation_fn=torch.nn.Identity()).reshape(-1).tolist()
    write_expected(FIXTURES / "pair_classifier", {"pairs": PAIRS, "scores": scores})


def sparse_encoder(scratch: Path) -> None:
    """Write tests/fixtures/sparse_encoder."""
    write_base(scratch / "base", BertForMaskedLM(bert()), 64, "token_type_ids")
    modules = [
        Transformer(str(scratch / "base"), transformer_task="fill-mask"),
        SpladePooling("max", activation_function="log1p_relu"),
    ]
    SparseEncoder(modules=modules).half().save_pretrained(str(scratch / "saved"))
    copy(scratch / "saved", FIXTURES / "sparse_encoder", SAVED)
    model = SparseEncoder(str(scratch / "saved"), model_kwargs={"dtype": torch.float32})
    vectors = model.encode(TEXTS, convert_to_sparse_tensor=False, convert_to_tensor=True).numpy().round(6).tolist()
    write_expected(FIXTURES / "sparse_encoder", {"texts": TEXTS, "vectors": vectors})


def sentence_encoder(scratch: Path) -> None:
    """Write tests/fixtures/sentence_encoder."""
    write_base(scratch / "base", BertModel(bert(), add_pooling_layer=False), 64, "token_type_ids")
    modules = [
        Transformer(str(scratch / "base"), max_seq_length=12),
        Pooling(HIDDEN, pooling_mode="mean"),
        Dense(HIDDEN, 24),
        Normalize(),
    ]
    model = SentenceTransformer(
        modules=modules, prompts={"query": "search ", "document": "text: "}, default_prompt_name="query"
    )
    model.half().save_pretrained(str(scratch / "saved"))
    target = FIXTURES / "sentence_encoder"
    copy(scratch / "saved", target, SAVED)
    write_expected(
        target,
        {
            "texts": TEXTS,
            "cases": [changed(target, scratch / "changed", name, *change) for name, change in CHANGES.items()],
        },
    )


def changed(saved: Path, folder: Path, name: str, kept: list[int], files: dict[str, dict[str, object]]) -> object:
    """One case: the files to write over the saved ones, and the vectors of the model that results."""
    rows = json.loads((saved / "modules.json").read_text(encoding="utf-8"))
    written: dict[str, object] = {"modules.json": [rows[number] for number in kept]}
    for path, fields in files.items():
        content = json.loads((saved / path).read_text(encoding="utf-8")) | fields
        written[path] = {key: value for key, value in content.items() if value is not None}
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(saved, folder)
    for path, content in written.items():
        (folder / path).write_text(json.dumps(content), encoding="utf-8")
    model = SentenceTransformer(str(folder), model_kwargs={"dtype": torch.float32}).float()
    vectors = {"embed": model.encode(TEXTS, prompt="")}
    if name in ("as saved", "no prompts"):
        vectors |= {"query_embed": model.encode_query(TEXTS), "passage_embed": model.encode_document(TEXTS)}
    return {"name": name, "files": written, **{key: value.round(6).tolist() for key, value in vectors.items()}}


def main() -> None:
    """Write all."""
    for write in (cross_encoder, sentence_encoder, pair_classifier, sparse_encoder):
        with tempfile.TemporaryDirectory() as scratch:
            write(Path(scratch))


if __name__ == "__main__":
    main()
