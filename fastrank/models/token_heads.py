"""Linear layers over a model's token states, beside its dense vectors: BGE-M3's two, and the one of gte-multilingual.

Chen et al. 2024, BGE M3-Embedding, arXiv:2402.03216; Zhang et al. 2024, mGTE, arXiv:2407.19669.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

from fastrank.errors import ModelLoadError
from fastrank.models.config import Config

SPARSE_FILE: Final = "sparse_linear.pt"
TOKENS_FILE: Final = "colbert_linear.pt"
FILES: Final = (SPARSE_FILE, TOKENS_FILE)

_CLASSES: Final = ("NewForTokenClassification", "GteForTokenClassification")


class TokenHead(NamedTuple):
    """A linear layer.

    Attributes:
        path: a file of torch; or the folder of a checkpoint, whose tensors `classifier.weight` and `.bias` it is.
        outputs: how many numbers it returns.
    """

    path: Path
    outputs: int


def sparse(folder: Path, file: str | None = None) -> TokenHead | None:
    """The layer that weighs the tokens of a text; None if the folder has none.

    Args:
        folder: the model's.
        file: the layer's; empty: the checkpoint's classifier; None: as the folder says.

    Raises:
        ModelLoadError: config.json is damaged.
    """
    if file == "":
        return TokenHead(folder, 1)
    if file or (folder / SPARSE_FILE).exists():
        return TokenHead(folder / (file or SPARSE_FILE), 1)
    names = Config.read_if_present(folder / "config.json").value("architectures")
    return TokenHead(folder, 1) if isinstance(names, list) and any(name in _CLASSES for name in names) else None


def tokens(folder: Path, file: str | None = None) -> TokenHead | None:
    """The layer that makes vectors for late interaction of token states; None if the folder has none.

    Raises:
        ModelLoadError: the file cannot be used.
    """
    if not file and not (folder / TOKENS_FILE).exists():
        return None
    from fastrank.models import torch_file  # few models have one

    path = folder / (file or TOKENS_FILE)
    weight = torch_file.read_header(path).get("weight")
    if weight is None or len(weight.shape) != 2:
        raise ModelLoadError(f"{path} has no matrix 'weight'")
    return TokenHead(path, weight.shape[0])
