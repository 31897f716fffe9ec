"""JinaBERT version 2 in plain torch, for `make_fixtures.py`: transformers has no such model.

Written from Günther et al. 2023 (arXiv:2310.19923), Press et al. 2021 (arXiv:2108.12409) and the modeling code that the
models name in their configurations, jinaai/jina-bert-implementation and jinaai/jina-bert-v2-qk-post-norm ("normed"
here). Parameters have the names that those checkpoints have. It says what is right by being simple; it is not fast.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional


class _Model(nn.Module):  # type: ignore[misc]
    """What `make_fixtures.py` asks of a model, as transformers names it."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    def _norm(self) -> Any:
        return nn.LayerNorm(self.config.hidden_size, eps=self.config.layer_norm_eps)

    @property
    def base_model(self) -> Any:
        """The encoder."""
        return getattr(self, "bert", self)

    def set_attn_implementation(self, _: str) -> None:
        """There is one only."""

    def save_pretrained(self, folder: Path) -> None:
        """Write `config.json` and `model.safetensors`."""
        folder.mkdir(parents=True)
        fields = vars(self.config) | {"architectures": [type(self).__name__]}
        (folder / "config.json").write_text(json.dumps(fields, indent=2) + "\n")
        save_file({name: value.contiguous() for name, value in self.state_dict().items()}, folder / "model.safetensors")


class JinaBertModel(_Model):
    """The encoder. `normed`: of jina-bert-v2-qk-post-norm."""

    def __init__(self, config: Any, *, normed: bool, pooler: bool = False) -> None:
        super().__init__(config)
        self.normed = normed
        hidden, inner = config.hidden_size, config.intermediate_size
        self.embeddings = nn.ModuleDict(
            {
                "word_embeddings": nn.Embedding(config.vocab_size, hidden),
                "token_type_embeddings": nn.Embedding(config.type_vocab_size, hidden),
                "LayerNorm": self._norm(),
            }
        )
        names = ("up_gated_layer", "down_layer") if normed else ("gated_layers", "wo")
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList()})
        for _ in range(config.num_hidden_layers):
            looks = {name: nn.Linear(hidden, hidden) for name in ("query", "key", "value")}
            looks |= {name: self._norm() for name in ("layer_norm_q", "layer_norm_k") if normed}
            mlp = {names[0]: nn.Linear(hidden, 2 * inner, bias=False), names[1]: nn.Linear(inner, hidden)}
            mlp |= {} if normed else {"layernorm": self._norm()}
            out = {"dense": nn.Linear(hidden, hidden), "LayerNorm": self._norm()}
            parts = {"attention": nn.ModuleDict({"self": nn.ModuleDict(looks), "output": nn.ModuleDict(out)})}
            parts |= {name: self._norm() for name in ("layer_norm_1", "layer_norm_2") if normed}
            self.encoder["layer"].append(nn.ModuleDict({**parts, "mlp": nn.ModuleDict(mlp)}))
        if pooler:
            self.pooler = nn.ModuleDict({"dense": nn.Linear(hidden, hidden)})

    @property
    def base_model(self) -> Any:
        """Itself, as in transformers."""
        return self

    def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any, **_: Any) -> Any:
        """The last hidden states, and the attention probabilities of every layer."""
        words = self.embeddings["word_embeddings"](input_ids)
        x = self.embeddings["LayerNorm"](words + self.embeddings["token_type_embeddings"](token_type_ids))
        lowest = torch.finfo(x.dtype).min
        bias = alibi(input_ids.shape[1], self.config.num_attention_heads)
        bias = bias + (1.0 - attention_mask[:, None, None, :]) * lowest
        attentions = []
        for layer in self.encoder["layer"]:
            x, attention = self._layer(layer, x, bias)
            attentions.append(attention)
        return SimpleNamespace(last_hidden_state=x, attentions=attentions)

    def _layer(self, layer: Any, x: Any, bias: Any) -> tuple[Any, Any]:
        look, out, mlp = layer["attention"]["self"], layer["attention"]["output"], layer["mlp"]
        query, key, value = look["query"](x), look["key"](x), look["value"](x)
        if self.normed:
            query, key = look["layer_norm_q"](query), look["layer_norm_k"](key)
        shape = (*x.shape[:2], self.config.num_attention_heads, -1)
        query, key, value = (part.view(shape).transpose(1, 2) for part in (query, key, value))
        attention = (query @ key.transpose(2, 3) / math.sqrt(query.shape[-1]) + bias).softmax(-1)
        mixed = (attention @ value).transpose(1, 2).reshape(x.shape)
        attended = out["LayerNorm"](out["dense"](mixed) + x)
        act = {"geglu": functional.gelu, "reglu": functional.relu}[self.config.feed_forward_type]
        if self.normed:
            x = layer["layer_norm_1"](attended + x)
            up, gate = mlp["up_gated_layer"](x).chunk(2, dim=-1)
            return layer["layer_norm_2"](mlp["down_layer"](up * act(gate)) + x), attention
        gate, up = mlp["gated_layers"](attended).chunk(2, dim=-1)
        return mlp["layernorm"](mlp["wo"](act(gate) * up) + attended), attention


class JinaBertForMaskedLM(_Model):
    """With BERT's head, whose decoder is the word embeddings."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.bert = JinaBertModel(config, normed=False)
        dense = nn.Linear(config.hidden_size, config.hidden_size)
        transform = nn.ModuleDict({"dense": dense, "LayerNorm": self._norm()})
        self.cls = nn.ModuleDict({"predictions": nn.ModuleDict({"transform": transform})})
        self.cls["predictions"].bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, **inputs: Any) -> Any:
        """As the encoder's, and the logits."""
        output, head = self.bert(**inputs), self.cls["predictions"]
        x = functional.gelu(head["transform"]["dense"](output.last_hidden_state))
        words = self.bert.embeddings["word_embeddings"].weight
        output.logits = head["transform"]["LayerNorm"](x) @ words.T + head.bias
        return output


class JinaBertForSequenceClassification(_Model):
    """With BERT's head."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.bert = JinaBertModel(config, normed=False, pooler=True)
        self.classifier = nn.Linear(config.hidden_size, 1)

    def forward(self, **inputs: Any) -> Any:
        """As the encoder's, and the logits."""
        output = self.bert(**inputs)
        output.logits = self.classifier(self.bert.pooler["dense"](output.last_hidden_state[:, 0]).tanh())
        return output


def alibi(length: int, heads: int) -> Any:
    """Minus the distance of two tokens, times each head's slope: [1, heads, length, length]."""
    places = torch.arange(length)
    distances = (places[None] - places[:, None]).abs()
    return -torch.tensor(slopes(heads))[None, :, None, None] * distances


def slopes(heads: int) -> list[float]:
    """Of each head, as the code of Press et al. has them."""
    if math.log2(heads).is_integer():
        start = 2 ** (-(2 ** -(math.log2(heads) - 3)))
        return [start * start**number for number in range(heads)]
    closest = 2 ** math.floor(math.log2(heads))
    return slopes(closest) + slopes(2 * closest)[0::2][: heads - closest]
