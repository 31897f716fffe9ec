"""How a cross-encoder is used: arguments over registry over folder, resolved into one complete record."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from fastrank.models import sentence_transformers
from fastrank.models.sentence_transformers import Pooled
from fastrank.models.spec import CrossEncoderTask


class CrossEncoderSettings(NamedTuple):
    """Complete settings of a cross-encoder.

    Attributes:
        activation: from logits to scores: "none", "sigmoid" or "softmax".
        label: the class that means "relevant"; None: the only one.
        pooled: modules that make the logits of token states; None: the graph has a classifier.
    """

    activation: str
    label: int | None
    pooled: Pooled | None

    @property
    def graph_head(self) -> str:
        """What to build on a checkpoint."""
        return "encoder" if self.pooled else "sequence-classification"


def resolve(task: CrossEncoderTask, folder: Path) -> CrossEncoderSettings:
    """What arguments and registry say, completed by the model's folder.

    Args:
        task: the registry's entry with the caller's arguments in it; `modules` None: as the folder says.
        folder: the model's.

    Raises:
        ModelLoadError: the folder's files are damaged, or it has prompts.
    """
    by_modules = task.modules
    if by_modules is None:
        sentence_transformers.refuse_prompts(folder)
        by_modules = len(sentence_transformers.modules(folder)) > 1
    return CrossEncoderSettings(
        task.activation, task.label, sentence_transformers.pooled(folder) if by_modules else None
    )
