"""Write tests/fixtures/modules/: a tiny cross-encoder made of sentence-transformers modules, and its scores.

    pip install torch==2.13.0 transformers==5.23.0 sentence-transformers==6.2.0 onnx
    python scripts/make_modules_fixture.py

As cross-encoder/ettin-reranker-*: ModernBERT, CLS pooling, Dense with GELU, LayerNorm, Dense to one score. The weights
are random with a fixed seed. Development only: nothing of this is needed to run the package or its tests.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

import torch  # type: ignore[import-not-found]  # needed here only, so in no extra of the package, as the others
from sentence_transformers import CrossEncoder  # type: ignore[import-not-found]
from sentence_transformers.base.modules import Dense, Transformer  # type: ignore[import-not-found]
from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling  # type: ignore[import-not-found]
from transformers import ModernBertConfig, ModernBertModel, PreTrainedTokenizerFast  # type: ignore[import-not-found]

ROOT = Path(__file__).parent.parent
TARGET = ROOT / "tests" / "fixtures" / "modules"
HIDDEN = 32
PAIRS = [
    ("what is the capital of france", "paris is the capital of france"),
    ("cat", ""),
    ("fast red dog", "the cat is red and fast " * 12),
    ("hello world", "hello"),
]


def main() -> None:
    """Write the fixture."""
    sys.path.insert(0, str(ROOT / "tests"))
    import tiny_models  # type: ignore[import-not-found]

    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as scratch:
        base = Path(scratch) / "base"
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
        ModernBertModel(config).save_pretrained(base)
        (base / "tokenizer.json").write_bytes(tiny_models.tiny_tokenizer())
        PreTrainedTokenizerFast(
            tokenizer_file=str(base / "tokenizer.json"),
            **{f"{name}_token": f"[{name.upper()}]" for name in ("pad", "cls", "sep", "unk", "mask")},
            model_max_length=128,
            model_input_names=["input_ids", "attention_mask"],
        ).save_pretrained(base)
        modules = [
            Transformer(str(base), transformer_task="feature-extraction"),
            Pooling(HIDDEN, pooling_mode="cls"),
            Dense(HIDDEN, HIDDEN, bias=False, activation_function=torch.nn.GELU()),
            LayerNorm(HIDDEN),
            Dense(HIDDEN, 1, activation_function=torch.nn.Identity(), module_output_name="scores"),
        ]
        for weights in (
            modules[2].linear.weight,
            modules[3].norm.weight,
            modules[3].norm.bias,
            modules[4].linear.weight,
        ):
            torch.nn.init.normal_(weights)  # so that scores differ
        model = CrossEncoder(modules=modules)
        saved = Path(scratch) / "saved"
        model.save_pretrained(str(saved))
        scores = model.predict(PAIRS, activation_fn=torch.nn.Identity()).reshape(-1).tolist()
        shutil.rmtree(TARGET, ignore_errors=True)
        for path in saved.rglob("*"):
            relative = path.relative_to(saved)
            if path.suffix == ".safetensors" or path.name in ("config.json", "modules.json", "tokenizer.json"):
                (TARGET / relative).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, TARGET / relative)
    (TARGET / "expected.json").write_text(
        json.dumps({"pairs": PAIRS, "scores": scores}, indent=1) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
