"""How rerankers that are language models get a pair, and how they score it: records, and light to import."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class PairPrompt(NamedTuple):
    """How a pair becomes one text.

    Attributes:
        render: the chat template.
        structured: whether the content of a message is a list of parts, instead of a text.
        variables: of the template, beside the messages.
        instruction: the system message; empty: none.
        restores_end: whether what the template adds after the document survives truncation.
    """

    render: Callable[[Mapping[str, Any]], str]
    structured: bool
    variables: Mapping[str, Any]
    instruction: str = ""
    restores_end: bool = True

    def text(self, query: str, document: str) -> str:
        """The prompt of a pair.

        Raises:
            ModelLoadError: the template cannot be rendered.
        """
        listed = [("system", self.instruction)] if self.instruction else []
        messages = [
            {"role": role, "content": [{"type": "text", "text": text}] if self.structured else text}
            for role, text in (*listed, ("query", query), ("document", document))
        ]
        return self.render({"add_generation_prompt": False, **self.variables, "messages": messages})


class ScoreTokens(NamedTuple):
    """The tokens whose logits are the score: that of `true`, minus that of `false` unless this is None."""

    true: int | str
    false: int | str | None


def registered(template: str) -> PairPrompt:
    """The prompt of a model of the registry, whose template is data there."""
    from fastrank.models import chat_template  # few models have one

    return PairPrompt(chat_template.compiled(template, "model_registry.json"), structured=False, variables={})
