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
        explanation = matches.explanation
        return {
            "model": matches.model,
            "query": [token["text"] for token in explanation["query_tokens"]],
            "document": [token["text"] for token in explanation["document_tokens"]],
            "scores": explanation["similarities"],
            **{name: explanation[name] for name in ("score", "matches", "query_tokens", "document_tokens")},
        }

    return Exchange(call, answer)
