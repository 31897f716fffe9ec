"""What follows a transformer: the records of modules that `sentence_transformers` reads and `engine.modules` runs."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, TypeAlias


class Dense(NamedTuple):
    """A linear layer with an activation: `activation(x @ weight.T + bias)`, plus the input where `residual`.

    Attributes:
        folder: contains model.safetensors with linear.weight (out, in), linear.bias, and residual.weight where needed.
        in_features: the size of what it takes.
        out_features: the size of what it returns.
        bias: whether it has one.
        residual: whether its input is added, through residual.weight if the sizes differ.
        activation: one of `engine.modules`.
    """

    folder: Path
    in_features: int
    out_features: int
    bias: bool
    residual: bool
    activation: str


class LayerNorm(NamedTuple):
    """Layer normalization; model.safetensors in `folder` has norm.weight and norm.bias, both (size,)."""

    folder: Path
    size: int


class WeightedLayers(NamedTuple):
    """The weighted mean of the states of several layers; model.safetensors in `folder` has layer_weights (layers,).

    Attributes:
        folder: with the weights.
        start: the first layer; 0: the embeddings.
        last: the last, which must be the transformer's.
    """

    folder: Path
    start: int
    last: int


class Normalize(NamedTuple):
    """L2 normalization."""


Step: TypeAlias = "Dense | LayerNorm | Normalize"


class Pooled(NamedTuple):
    """What follows the transformer in a folder's modules.

    Attributes:
        poolings: names in `engine.pooling.POOLINGS`; several are concatenated.
        width: the size of what pooling returns; None if no file says so.
        steps: the modules after pooling, but for a final Normalize.
        normalize: whether a Normalize ends the list.
        dim: the size of the result; None if no file says so.
        token_steps: the modules before pooling, which change the state of each token.
        layers: what the states of tokens are the mean of; None: they are those of the last layer.
        include_prompt: whether the tokens of a prompt count.
    """

    poolings: tuple[str, ...]
    width: int | None
    steps: tuple[Step, ...]
    normalize: bool
    dim: int | None
    token_steps: tuple[Step, ...] = ()
    layers: WeightedLayers | None = None
    include_prompt: bool = True

    @property
    def graph_head(self) -> str:
        """What to build on a checkpoint."""
        return "layer-states" if self.layers else "encoder"
