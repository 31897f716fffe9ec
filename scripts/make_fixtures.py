"""Write the tiny random checkpoints under tests/fixtures/graph and what transformers computes from them.

Run it from the repository's root, in an environment of its own:

    pip install torch==2.13.0 transformers==5.23.0
    python scripts/make_fixtures.py [folder ...]

Without arguments it writes all. Two models are not transformers': JinaBERT, see `jina_bert_reference.py`; and NomicBERT
with biases or under old names, for which transformers' model is changed to what the model's own code makes of them.

The committed files were written with those two versions. Seeds are fixed; another torch may draw other weights, which
is fine as long as all files of a checkpoint are committed together. Nothing is downloaded.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jina_bert_reference as jina
import torch  # needed here only, so in no extra of the package
import transformers

OUT = Path(__file__).parent.parent / "tests" / "fixtures" / "graph"
SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
}

MODERN = SMALL | {
    "num_hidden_layers": 4,  # the first and the last look at everything, those between at 4 tokens to each side
    "intermediate_size": 24,
    "local_attention": 8,
    **{f"{name}_token_id": number for number, name in enumerate(["pad", "bos", "eos", "cls", "sep"])},
}
JINA = SMALL | {
    "model_type": "bert",
    "position_embedding_type": "alibi",
    "feed_forward_type": "geglu",
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}
GPT2_NAMES = {
    "hidden_size": "n_embd",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "intermediate_size": "n_inner",
    "max_position_embeddings": "n_positions",
    "layer_norm_eps": "layer_norm_epsilon",
}


def make_models() -> dict[str, tuple[Any, list[str]]]:
    """The checkpoints by folder, and what to store of each beside the hidden states.

    Together they have each activation, names with and without prefix, unlike padding ids, and both values of every
    switch.
    """
    t = transformers
    bert = t.BertConfig(**SMALL)
    bert_new = t.BertConfig(**SMALL, hidden_act="gelu_new", num_labels=3)
    roberta = t.RobertaConfig(**SMALL, layer_norm_eps=1e-5)
    xlm = t.XLMRobertaConfig(**SMALL, hidden_act="relu", type_vocab_size=1, pad_token_id=3)
    xlm_one = t.XLMRobertaConfig(**SMALL, type_vocab_size=1, num_labels=1)
    electra = t.ElectraConfig(**SMALL, embedding_size=32, num_labels=3)
    narrow = t.ElectraConfig(**SMALL, embedding_size=16, hidden_act="relu")
    distilbert = t.DistilBertConfig(
        vocab_size=64, dim=32, n_layers=2, n_heads=4, hidden_dim=48, max_position_embeddings=40
    )
    mpnet = t.MPNetConfig(**SMALL, num_labels=3)
    far = t.MPNetConfig(**SMALL | {"max_position_embeddings": 102, "pad_token_id": 3})  # has all buckets of distances
    modern = t.ModernBertConfig(**MODERN)
    biased = t.ModernBertConfig(
        **MODERN,
        **dict.fromkeys(["attention_bias", "mlp_bias", "norm_bias", "classifier_bias"], True),
        hidden_activation="gelu_pytorch_tanh",
        classifier_activation="relu",
        classifier_pooling="mean",
        num_labels=1,
    )
    jina_en = SimpleNamespace(**JINA)
    jina_six = SimpleNamespace(**JINA | {"num_attention_heads": 6, "hidden_size": 24, "feed_forward_type": "reglu"})
    nomic = t.NomicBertConfig(**SMALL)
    nomic_gelu = t.NomicBertConfig(**SMALL, hidden_act="gelu", rope_parameters={"rope_theta": 10_000.0}, num_labels=3)
    return {
        "bert": (t.BertModel(bert, add_pooling_layer=False), ["attention"]),
        "bert_masked_lm": (t.BertForMaskedLM(bert), ["logits", "splade"]),
        "bert_with_head": (t.BertForSequenceClassification(bert_new), ["logits"]),
        "distilbert_classifier": (t.DistilBertForSequenceClassification(distilbert), ["logits", "attention"]),
        "distilbert_masked_lm": (t.DistilBertForMaskedLM(distilbert), ["logits", "splade"]),
        "electra_classifier": (t.ElectraForSequenceClassification(electra), ["logits", "attention"]),
        "electra_masked_lm": (t.ElectraForMaskedLM(narrow), ["logits", "splade"]),
        "jina_bert_classifier": (jina.JinaBertForSequenceClassification(jina_six), ["logits", "attention"]),
        "jina_bert_masked_lm": (jina.JinaBertForMaskedLM(jina_en), ["logits", "splade"]),
        "jina_bert_normed": (jina.JinaBertModel(jina_en, normed=True), []),
        "modernbert_classifier": (t.ModernBertForSequenceClassification(biased), ["logits"]),
        "modernbert_cls": (t.ModernBertForSequenceClassification(modern), ["logits", "attention"]),
        "modernbert_masked_lm": (t.ModernBertForMaskedLM(modern), ["logits", "splade"]),
        "mpnet_classifier": (t.MPNetForSequenceClassification(mpnet), ["logits", "attention"]),
        "mpnet_masked_lm": (t.MPNetForMaskedLM(far), ["logits", "splade"]),
        "nomic_bert_classifier": (
            with_biases(t.NomicBertForSequenceClassification(nomic_gelu)),
            ["logits", "attention"],
        ),
        "nomic_bert_masked_lm": (t.NomicBertForMaskedLM(nomic), ["logits", "splade"]),
        "nomic_bert_old_masked_lm": (without_head_biases(t.NomicBertForMaskedLM(nomic)), ["logits", "splade"]),
        "roberta": (t.RobertaModel(roberta, add_pooling_layer=False), ["attention"]),
        "roberta_masked_lm": (t.RobertaForMaskedLM(roberta), ["logits", "splade"]),
        "xlm_roberta_classifier": (t.XLMRobertaForSequenceClassification(xlm_one), ["logits"]),
        "xlm_roberta_with_head": (t.XLMRobertaForTokenClassification(xlm), []),
    }


def with_biases(model: Any) -> Any:
    """NomicBERT as its own code makes it when the configuration asks for biases."""
    for module in list(model.modules()):
        for name, part in list(module.named_children()):
            if isinstance(part, torch.nn.Linear) and part.bias is None:
                setattr(module, name, torch.nn.Linear(part.in_features, part.out_features))
    return model


def without_head_biases(model: Any) -> Any:
    """NomicBERT's masked-LM head as its own code makes it when the configuration asks for no biases."""
    transform = model.cls.predictions.transform
    transform.dense = torch.nn.Linear(transform.dense.in_features, transform.dense.out_features, bias=False)
    model.cls.predictions.decoder.bias = model.cls.predictions.bias = None
    return model


def rename_as_gpt2(path: Path, *, activation: str, biases: bool) -> None:
    """Make a NomicBERT's configuration one of the model's own code."""
    values = json.loads(path.read_text())
    theta = values.pop("rope_parameters")["rope_theta"]
    del values["hidden_act"], values["head_dim"]
    values |= {new: values.pop(old) for old, new in GPT2_NAMES.items()}
    values |= dict.fromkeys(["qkv_proj_bias", "mlp_fc1_bias", "mlp_fc2_bias"], biases)
    values |= {"rotary_emb_base": theta, "rotary_emb_fraction": 1.0, "activation_function": activation}
    path.write_text(json.dumps(values, indent=2) + "\n")


def randomize(model: Any) -> None:
    """Draw every parameter, because fresh biases are all 0 and would hide a missing one."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        is_norm = name.endswith(".weight") and parameter.ndim == 1
        centre = 1.0 if is_norm else 0.0
        parameter.data = centre + 0.2 * torch.randn(parameter.shape, generator=generator)


def make_batches(pad: int, longest: int) -> dict[str, dict[str, list[Any]]]:
    """Inputs: lengths 1, 2, odd and the longest; padding; and masks that do not agree with the padding ids."""
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
    return {**batches, "odd_masks": odd, "odd": batch(7), "padded_longest": batch(2, longest)}


def run(model: Any, inputs: dict[str, list[Any]], keys: list[str]) -> dict[str, list[Any]]:
    """What transformers computes, to six decimals: the last hidden states, and the outputs named by `keys`."""
    with torch.no_grad():
        tensors = {key: torch.tensor(rows) for key, rows in inputs.items()}
        hidden = model.base_model(**tensors).last_hidden_state
        output = model(**tensors, output_attentions=True)
    results = {"last_hidden_state": hidden, "attention": output.attentions[-1]}
    if "logits" in keys:
        results["logits"] = output.logits
    if "splade" in keys:  # Formal et al. 2021, arXiv:2109.10086, with the maximum of its version 2
        weights = output.logits.double().relu().log1p() * tensors["attention_mask"].unsqueeze(-1)
        results["splade"] = weights.amax(dim=1)
    return {key: rounded(results[key].tolist()) for key in ("last_hidden_state", *keys)}


def rounded(values: Any) -> Any:
    """Numbers in nested lists, to six decimals; None for what is not a number, such as the mean of no tokens."""
    if isinstance(values, list):
        return [rounded(value) for value in values]
    return None if math.isnan(values) else round(values, 6)


def main() -> None:
    """Write the folders anew."""
    transformers.logging.disable_progress_bar()
    for name, (model, keys) in make_models().items():
        if name not in (sys.argv[1:] or [name]):
            continue
        folder = OUT / name
        shutil.rmtree(folder, ignore_errors=True)
        randomize(model)
        model.eval().set_attn_implementation("eager")
        model.save_pretrained(folder)
        if name == "nomic_bert_classifier":
            rename_as_gpt2(folder / "config.json", activation="geglu", biases=True)
        elif name == "nomic_bert_old_masked_lm":
            rename_as_gpt2(folder / "config.json", activation="swiglu", biases=False)
        pad, positions = model.config.pad_token_id, model.config.max_position_embeddings
        if "roberta" in name:
            positions -= pad + 1
        elif "mpnet" in name:
            positions -= 2
        batches = make_batches(pad, positions)
        for inputs in batches.values():
            if model.config.model_type not in {"bert", "electra", "nomic_bert"}:
                del inputs["token_type_ids"]
            inputs.update(run(model, inputs, keys))
        (folder / "expected.json").write_text(json.dumps(batches, separators=(",", ":")) + "\n")
        print(folder.name, *(f"{file.name} {file.stat().st_size}" for file in sorted(folder.iterdir())))


if __name__ == "__main__":
    main()
