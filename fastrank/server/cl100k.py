"""Token ids of OpenAI's cl100k_base back to text, where tiktoken and its table are on this machine.

LangChain's OpenAIEmbeddings sends such ids by default. They mean nothing to any other model.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from fastrank import environment

_TABLE = "9b5ad71b2ce5302211f9c61530b329a4922fc6a4"  # what tiktoken calls the table's file in its cache


def decoder() -> Callable[[Sequence[int]], str] | None:
    """The function from ids to text; None where it would have to be downloaded."""
    folder = environment.tiktoken_cache()
    if folder is None or not Path(folder, _TABLE).is_file() or importlib.util.find_spec("tiktoken") is None:
        return None
    return lambda ids: str(_encoding().decode(list(ids)))


@cache
def _encoding() -> Any:
    import tiktoken

    return tiktoken.get_encoding("cl100k_base")
