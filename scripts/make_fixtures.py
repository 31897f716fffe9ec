"""Write the tiny random checkpoints under tests/fixtures/graph and what transformers computes from them.

Run it from the repository's root, in an environment of its own:

    pip install torch==2.13.0 transformers==5.23.0
    python scripts/make_fixtures.py

The committed files were written with those two versions. Seeds are fixed; another torch may draw other weights, which
is fine as long as all files of a checkpoint are committed together. Nothing is downloaded.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch  # type: ignore[import-not-found]  # needed here only, so in no extra of the package
import transformers  # type: ignore[import-not-found]

OUT = Path(__file__).parent.parent / "tests" / "fixtures" / "graph"
SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
}


def make_models() -> dict[str, Any]:
    """The checkpoints by folder: each activation, names with and without prefix, unlike padding ids."""
    bert = transformers.BertConfig(**SMALL)
    bert_new = transformers.BertConfig(**SMALL, hidden_act="gelu_new")
    roberta = transformers.RobertaConfig(**SMALL, layer_norm_eps=1e-5)
    xlm = transformers.XLMRobertaConfig(**SMALL, hidden_act="relu", type_vocab_size=1, pad_token_id=3)
    return {
        "bert": transformers.BertModel(bert, add_pooling_layer=False),
        "bert_with_head": transformers.BertForSequenceClassification(bert_new),
        "roberta": transformers.RobertaModel(roberta, add_pooling_layer=False),
        "xlm_roberta_with_head": transformers.XLMRobertaForTokenClassification(xlm),
    }


def randomize(model: Any) -> None:
    """Draw every parameter, because fresh biases are all 0 and would hide a missing one."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        centre = 1.0 if name.endswith("LayerNorm.weight") else 0.0
        parameter.data = centre + 0.2 * torch.randn(parameter.shape, generator=generator)


def make_batches(pad: int, longest: int) -> dict[str, dict[str, list[Any]]]:
    """Inputs: lengths 1, 2 and the longest; padding; and masks that do not agree with the padding ids."""
    generator = torch.Generator().manual_seed(1)

    def batch(*lengths: int) -> dict[str, list[Any]]:
        rows = [torch.randint(5, SMALL["vocab_size"], (length,), generator=generator).tolist() for length in lengths]
        width = max(lengths)
        return {
            "input_ids": [row + [pad] * (width - len(row)) for row in rows],
            "attention_mask": [[1] * len(row) + [0] * (width - len(row)) for row in rows],
            "token_type_ids": [[int(2 * i > len(row)) for i in range(width)] for row in rows],
        }

    batches = {"one": batch(1), "two": batch(2), "longest": batch(longest), "padded": batch(3, 7, 1, 5)}
    odd = batch(6, 6, 6)
    odd["input_ids"][0][2] = pad  # a padding id that the mask shows
    odd["attention_mask"][1][3] = 0  # a real token that the mask hides
    odd["attention_mask"][2] = [0] * 6  # a row that is nothing but padding
    return {**batches, "odd_masks": odd}


def main() -> None:
    """Write all folders anew."""
    transformers.logging.disable_progress_bar()
    for name, model in make_models().items():
        folder = OUT / name
        shutil.rmtree(folder, ignore_errors=True)
        randomize(model)
        model.eval().set_attn_implementation("eager")
        model.save_pretrained(folder)
        is_bert = name.startswith("bert")
        pad, positions = model.config.pad_token_id, SMALL["max_position_embeddings"]
        batches = make_batches(pad, positions if is_bert else positions - pad - 1)
        for inputs in batches.values():
            if not is_bert:
                del inputs["token_type_ids"]
            with torch.no_grad():
                hidden = model.base_model(**{key: torch.tensor(rows) for key, rows in inputs.items()}).last_hidden_state
            inputs["last_hidden_state"] = [[[round(x, 6) for x in row] for row in text] for text in hidden.tolist()]
        (folder / "expected.json").write_text(json.dumps(batches, separators=(",", ":")) + "\n")
        print(folder.name, *(f"{file.name} {file.stat().st_size}" for file in sorted(folder.iterdir())))


if __name__ == "__main__":
    main()
