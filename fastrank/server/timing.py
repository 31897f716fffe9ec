"""Where the time of a request went, filled in while it runs."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from fastrank.server.wire import calls
from fastrank.server.wire.dialects import Dialect


@dataclass
class Timing:
    """Seconds of the parts of a request.

    Attributes:
        begun: when it began, by `time.perf_counter`.
        tokenization: tokenizing its texts.
        queue: from then until its first unit ran.
        inference: from then until its last unit was done.
        started: whether a unit has run.
        texts: how many it has.
        characters: of them all.
        tokens: of them all, after truncation.
        truncated: texts that were cut.
        model: the name of the model that runs it; empty until it is known.
        kind: "embed" or "predict", as text-embeddings-inference counts; None: neither.
        dialect: of the request, once its body is known.
    """

    begun: float = field(default_factory=time.perf_counter)
    tokenization: float = 0.0
    queue: float = 0.0
    inference: float = 0.0
    started: bool = False
    texts: int = 0
    characters: int = 0
    tokens: int = 0
    truncated: int = 0
    model: str = ""
    kind: str | None = None
    dialect: Dialect | None = None

    def describe(self, call: calls.Call) -> None:
        """Take what a call says of itself."""
        if isinstance(call, calls.Score):
            self.texts, self.kind = len(call.pairs), "predict"
            self.characters = sum(
                len(part) for pair in call.pairs for part in ((pair,) if isinstance(pair, str) else pair)
            )
        else:
            self.texts = len(call.texts)
            self.kind = None if isinstance(call, (calls.Tokenize, calls.Match)) else "embed"
            self.characters = sum(map(len, call.texts))

    def total(self) -> float:
        """Seconds since it began."""
        return time.perf_counter() - self.begun
