"""What only our page asks for."""

from __future__ import annotations

from typing import Any

from fastrank.server.wire import fields
from fastrank.server.wire.calls import Exchange, Match, Matches
from fastrank.server.wire.fields import Request


def match(request: Request) -> Exchange:
    """`/page/match`: token by token, the similarities that MaxSim takes the highest of."""
    call = Match(fields.model(request), fields.query(request, "query"), fields.query(request, "document"))

    def answer(matches: Matches) -> dict[str, Any]:
        return {
            "model": matches.model,
            "query": list(matches.query),
            "document": list(matches.document),
            "scores": list(matches.scores),
        }

    return Exchange(call, answer)
