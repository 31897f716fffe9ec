"""Write the tiny random ColBERT models under tests/fixtures/late_interaction and what PyLate computes from them.

Run it from the repository's root, in an environment of its own:

    pip install torch==2.13.0 transformers==5.3.0 sentence-transformers==5.3.0 pylate==1.6.0 onnx
    python scripts/make_late_interaction_fixtures.py

The committed files were written with those versions. Seeds are fixed; another torch may draw other weights, which is
fine as long as all files of a model are committed together. Nothing is downloaded.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch  # needed here only, so in no extra of the package
import transformers
from pylate.models import ColBERT, Dense
from safetensors.torch import load_file, save_file
from sentence_transformers.models import Transformer

ROOT = Path(__file__).parent.parent
OUT = ROOT / "tests" / "fixtures" / "late_interaction"
KEPT = ("config.json", "modules.json", "tokenizer.json", "tokenizer_config.json", "artifact.metadata")
SETTINGS = ("config_sentence_transformers.json", "sentence_bert_config.json")
HIDDEN, DIM, QUERY_LENGTH = 32, 8, 10
SMALL = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
QUERIES = [
    *("", "cat", "what is the capital of france", "cat dog red green blue cat dog", "cat, dog!"),
    "how fast is the red dog of paris in the blue world of germany and berlin",
]
DOCUMENTS = [
    *("", "?!... (-)", "paris is the capital of france.", "hello, world! hello-world / cats; dogs: zx9"),
    "the cat is red and fast, the dog is blue " * 4,
]


def main() -> None:
    """Write all folders anew."""
    sys.path.insert(0, str(ROOT / "tests"))
    import tiny_models  # type: ignore[import-not-found]

    def special(kind: str) -> dict[str, Any]:
        """What the configuration of a model says about a tiny vocabulary."""
        return {"vocab_size": len(tiny_models.vocabulary(kind)), "pad_token_id": tiny_models.PAD_ID[kind]}

    def folder(kind: str, model: Any, scratch: Path) -> Path:
        """A transformer and its tokenizer, saved."""
        draw(model)
        model.save_pretrained(scratch)
        (scratch / "tokenizer.json").write_bytes(tiny_models.tiny_tokenizer(kind))
        names = ("pad", "cls", "sep", "unk", "mask") if kind == "wordpiece" else ("pad", "unk", "mask")
        tokens = {f"{n}_token": f"[{n.upper()}]" if kind == "wordpiece" else f"<{n}>" for n in names}
        if kind == "bpe":
            tokens |= {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>"}
        inputs = ["input_ids", "attention_mask", *(["token_type_ids"] if model.config.model_type == "bert" else [])]
        transformers.PreTrainedTokenizerFast(
            tokenizer_file=str(scratch / "tokenizer.json"), model_max_length=64, model_input_names=inputs, **tokens
        ).save_pretrained(scratch)
        return scratch

    with tempfile.TemporaryDirectory() as scratch:
        t, place = transformers, Path(scratch)
        bert = t.BertModel(t.BertConfig(**SMALL, **special("wordpiece")), add_pooling_layer=False)
        write_colbert("colbert", folder("wordpiece", bert, place / "bert"))

        write_pylate(
            "pylate_bert",
            ColBERT(
                modules=[Transformer(str(place / "bert")), Dense(HIDDEN, DIM, bias=True)],
                query_prefix="[unused0]",
                document_prefix="[unused1]",
                query_length=QUERY_LENGTH,
                document_length=20,
                do_query_expansion=False,
                skiplist_words=["cat", ","],
            ),
        )
        modern = t.ModernBertModel(
            t.ModernBertConfig(
                **SMALL | {"num_hidden_layers": 3, "local_attention": 8},
                **special("wordpiece"),
                cls_token_id=4,
                sep_token_id=5,
            )
        )
        write_pylate(
            "pylate_modernbert",
            ColBERT(
                modules=[
                    Transformer(str(folder("wordpiece", modern, place / "modern"))),
                    Dense(HIDDEN, 24, bias=True, activation_function=torch.nn.GELU(), use_residual=True),
                    Dense(24, 24, bias=False, use_residual=True),
                    Dense(24, DIM, bias=False),
                ],
                query_prefix="[Q] ",
                document_prefix="[D] ",
                query_length=QUERY_LENGTH,
                document_length=24,
                attend_to_expansion_tokens=True,
            ),
        )
        xlm = t.XLMRobertaModel(
            t.XLMRobertaConfig(**SMALL | {"max_position_embeddings": 66}, **special("bpe"), type_vocab_size=1),
            add_pooling_layer=False,
        )
        write_pylate(
            "pylate_xlm_roberta",
            ColBERT(
                modules=[Transformer(str(folder("bpe", xlm, place / "xlm"))), Dense(HIDDEN, DIM, bias=False)],
                query_prefix="",
                document_prefix="[D] ",
                query_length=QUERY_LENGTH,
                document_length=40,
            ),
        )


def write_colbert(name: str, base: Path) -> None:
    """As ColBERT itself saves a checkpoint: the linear layer beside the encoder, settings in artifact.metadata."""
    weights = {f"bert.{key}": value for key, value in load_file(base / "model.safetensors").items()}
    generator = torch.Generator().manual_seed(1)
    weights["linear.weight"] = 0.2 * torch.randn((DIM, HIDDEN), generator=generator)
    save_file(weights, base / "colbert.safetensors", {"format": "pt"})
    saved = base.parent / name
    shutil.copytree(base, saved)
    (saved / "colbert.safetensors").replace(saved / "model.safetensors")
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps(config | {"architectures": ["HF_ColBERT"]}, indent=2) + "\n")
    metadata = {
        "query_token_id": "[unused0]",
        "doc_token_id": "[unused1]",
        "query_token": "[Q]",
        "doc_token": "[D]",
        "query_maxlen": QUERY_LENGTH,
        "doc_maxlen": 16,
        "attend_to_mask_tokens": False,
        "mask_punctuation": True,
        "dim": DIM,
        "similarity": "cosine",
    }
    (saved / "artifact.metadata").write_text(json.dumps(metadata, indent=2) + "\n")
    write(name, ColBERT(str(saved)), saved)


def write_pylate(name: str, model: Any) -> None:
    """As PyLate saves a model: its Dense modules in folders of their own."""
    draw(model)
    with tempfile.TemporaryDirectory() as scratch:
        model.save_pretrained(scratch)
        write(name, ColBERT(scratch), Path(scratch))


def write(name: str, model: Any, saved: Path) -> None:
    """The files that fastrank reads, and the vectors."""
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    for path in saved.rglob("*"):
        if path.name in (*KEPT, *SETTINGS, "model.safetensors"):
            place = folder / path.relative_to(saved)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
    model.eval()
    expected = {
        "queries": [[text, rounded(model.encode(text, is_query=True))] for text in QUERIES],
        "documents": [[text, rounded(model.encode(text, is_query=False))] for text in DOCUMENTS],
        "pooled": [[text, rounded(model.encode(text, is_query=False, pool_factor=3))] for text in DOCUMENTS],
    }
    (folder / "expected.json").write_text(json.dumps(expected, separators=(",", ":")) + "\n")
    print(name, *(f"{path.name} {path.stat().st_size}" for path in sorted(folder.rglob("*")) if path.is_file()))


def draw(model: Any) -> None:
    """Draw every parameter, because fresh biases are all 0 and would hide a missing one."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        centre = 1.0 if name.lower().replace("_", "").endswith("norm.weight") else 0.0
        parameter.data = centre + 0.2 * torch.randn(parameter.shape, generator=generator)


def rounded(vectors: Any) -> list[list[float]]:
    """To six decimals."""
    return [[round(float(value), 6) for value in row] for row in vectors]


if __name__ == "__main__":
    main()
