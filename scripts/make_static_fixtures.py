"""Write the tiny static embeddings under tests/fixtures/static and what their own libraries compute from them.

Run it from the repository's root, in an environment of its own:

    pip install model2vec==0.10.0 sentence-transformers==6.2.0
    python scripts/make_static_fixtures.py

Seeds are fixed; nothing is downloaded.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from model2vec import StaticModel
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import (
    Normalize,
    StaticEmbedding,
)
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

OUT = Path(__file__).parent.parent / "tests" / "fixtures" / "static"
WORDS = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "cat", "sat", "on", "a", "mat", "and", "dog", "ran", "to", "red"),
    *("house", "##s", "##ing", ".", ","),
]
TEXTS = [
    "cat",  # one token
    "the cat",
    "The cat sat on a mat, and the dogs ran to a red house.",
    "the " * 600,  # more than model2vec's limit of 512
    "cat zebra dog",  # an unknown word
    "zebra",
    "",
    "  ",
    "[CLS] cat [SEP]",
]
DIM = 12


def make_tokenizer() -> Tokenizer:
    """BERT's, with special tokens and padding, which static models must not use."""
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))  # noqa: S106 - no password
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = [("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=special)
    tokenizer.add_special_tokens(WORDS[:4])
    tokenizer.enable_padding()
    return tokenizer


def make_models() -> dict[str, Any]:
    """The models by folder."""
    dice = np.random.default_rng(0)
    table = dice.normal(size=(len(WORDS), DIM)).astype(np.float32)
    mapping = np.arange(len(WORDS)) // 2  # two tokens share a row
    weights = dice.uniform(0.5, 2, len(WORDS))  # float64, as model2vec makes them
    config = {"model_type": "model2vec", "architectures": ["StaticModel"], "seq_length": 1000000, "hidden_dim": DIM}
    shared = {"weights": weights, "token_mapping": mapping}
    rows = table[: len(WORDS) // 2]
    return {
        "model2vec": StaticModel(table, make_tokenizer(), config, normalize=True),
        "model2vec_shared": StaticModel(rows, make_tokenizer(), config, normalize=False, **shared),
        "sentence_transformers": SentenceTransformer(
            modules=[StaticEmbedding(make_tokenizer(), embedding_weights=table), Normalize()], device="cpu"
        ),
    }


def main() -> None:
    """Write all folders anew."""
    for name, model in make_models().items():
        folder = OUT / name
        shutil.rmtree(folder, ignore_errors=True)
        model.save_pretrained(str(folder))
        (folder / "README.md").unlink()
        if name == "model2vec_shared":
            (folder / "modules.json").unlink()  # as older versions wrote it
        vectors = np.asarray(model.encode(TEXTS), np.float64).round(6).tolist()
        expected = {"texts": TEXTS, "vectors": vectors}
        (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
        print(name, *(f"{file.relative_to(folder)} {file.stat().st_size}" for file in sorted(folder.rglob("*.*"))))


if __name__ == "__main__":
    main()
