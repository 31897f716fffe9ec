"""Rotary position embeddings (Su et al. 2021, arXiv:2104.09864): queries and keys rotated by position."""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, NamedTuple

from fastrank.graph import onnx_proto

if TYPE_CHECKING:
    from fastrank.graph.builder import Graph
    from fastrank.models.config import Config


class CosSin(NamedTuple):
    """Cosine and sine of every position's angles, [sequence, 1, width / 2] each."""

    cos: str
    sin: str


def frequencies(width: int, theta: float) -> list[float]:
    """`theta ** (-2n / width)` for n < width / 2, rounded to float32 as torch rounds.

    At position 8,000 a difference in the last digit of a frequency changes the angle by 0.0005.
    """
    return [float32(1 / float32(theta ** float32(even / width))) for even in range(0, width, 2)]


def ntk_frequencies(width: int, theta: float, factor: float) -> list[float]:
    """Frequencies for texts `factor` times as long as those of training (NTK scaling, https://kexue.fm/archives/9706).

    At every length, unlike transformers' dynamic NTK: as the modeling code of Alibaba-NLP/new-impl does it.
    """
    divisor = float32(factor ** (2 / width))
    return [float32(value / divisor) for value in frequencies(width, theta * factor)]


class Rotation(NamedTuple):
    """How positions rotate.

    Attributes:
        frequencies: Of each pair of dimensions.
        scale: Multiplies cosines and sines.
    """

    frequencies: list[float]
    scale: float = 1.0


def section(config: Config) -> Config:
    """What says how positions rotate: `rope_scaling` of older configurations, which transformers takes first.

    Raises:
        ModelLoadError: It is no object.
    """
    if config.has("rope_scaling") and config.section("rope_scaling").fields():
        config.has("rope_parameters")  # which is read, and does not count
        return config.section("rope_scaling")
    return config.section("rope_parameters")


def rotation(config: Config, section: Config, width: int, theta: float, positions: int) -> Rotation:
    """The rotation that a section of `config.json` asks for: `rope_type` "default", "linear" or "yarn".

    Linear: frequencies divided by a factor (Chen et al. 2023, arXiv:2306.15595). YaRN: only low ones are, and cosines
    and sines grow with the factor (Peng et al. 2023, arXiv:2309.00071). As transformers has them.

    Args:
        config: The checkpoint's configuration.
        section: `rope_parameters`, or `rope_scaling` of older configurations.
        width: Dimensions of one head.
        theta: The base.
        positions: `max_position_embeddings`.

    Raises:
        ModelLoadError: A field is missing or absurd, or asks for another scaling.
    """
    kind = section.choice(section.first("rope_type", "type"), ["default", "linear", "yarn"], default="default")
    section.choice("partial_rotary_factor", [1, 1.0], default=1)
    if kind == "default":
        if section.has("factor"):
            section.number("factor", 1, low=0, high=1e6)  # which nothing reads
        return Rotation(frequencies(width, theta))
    if not section.has("factor"):
        raise section.error("factor", f"rope_type {kind!r} needs one")
    factor = section.number("factor", 1, low=1e-6, high=1e6)
    if kind == "linear":
        return Rotation([float32(value / float32(factor)) for value in frequencies(width, theta)])
    return _yarn(config, section, width, theta, positions, factor)


def _yarn(config: Config, section: Config, width: int, theta: float, positions: int, factor: float) -> Rotation:
    stated = section.integer("original_max_position_embeddings", default=positions, high=10_000_000)
    original = config.integer("original_max_position_embeddings", default=stated, high=10_000_000)
    fast, slow = (section.number(f"beta_{name}", 0, low=0, high=1e6) for name in ("fast", "slow"))
    low, high = (
        width * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(theta)) for turns in (fast or 32, slow or 1)
    )
    if section.flag("truncate", default=True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, width - 1)
    span = float32(high - low or 0.001)
    found = []
    for number, value in enumerate(frequencies(width, theta)):
        ramp = min(max(float32(float32(number - low) / span), 0.0), 1.0)
        kept = float32(1 - ramp)
        slower = float32(1 / float32(float32(factor) * float32(theta ** float32(2 * number / width))))
        found.append(float32(float32(slower * float32(1 - kept)) + float32(value * kept)))
    return Rotation(found, _yarn_scale(section, factor))


def _yarn_scale(section: Config, factor: float) -> float:
    """What multiplies cosines and sines."""

    def grown(by: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * by * math.log(factor) + 1.0

    over, under = (section.number(name, 0, low=0, high=1e6) for name in ("mscale", "mscale_all_dim"))
    usual = grown(over) / grown(under) if over and under else grown(1)
    return section.number("attention_factor", usual, low=0, high=1e6)


def cos_sin(graph: Graph, position_ids: str, rotation: Rotation) -> CosSin:
    """Cosines and sines of `position_ids`, int64 [sequence, 1], as `rotation` has them."""
    angles = graph.op("Mul", graph.op("Cast", position_ids, to=onnx_proto.FLOAT), graph.floats(rotation.frequencies))
    angles = graph.op("Unsqueeze", angles, graph.integers(1))
    parts = [graph.op(kind, angles) for kind in ("Cos", "Sin")]
    if rotation.scale != 1:
        parts = [graph.op("Mul", part, graph.scalar(rotation.scale, float32=True)) for part in parts]
    return CosSin(*map(graph.to_compute_dtype, parts))


def apply(graph: Graph, x: str, position: CosSin) -> str:
    """Rotate each pair of dimensions (n, n + width / 2); [batch, sequence, heads, width] to the same shape."""
    left, right = graph.split(x, 2)
    rotated_left = graph.op("Sub", graph.op("Mul", left, position.cos), graph.op("Mul", right, position.sin))
    rotated_right = graph.op("Add", graph.op("Mul", right, position.cos), graph.op("Mul", left, position.sin))
    return graph.op("Concat", rotated_left, rotated_right, axis=-1)


def float32(value: float) -> float:
    """Round to float32."""
    return float(struct.unpack("<f", struct.pack("<f", value))[0])
