"""The small engine that the contracts were recorded with: its vectors say how long a text is."""

import numpy as np

from fastrank.late_interaction.explanation import Explanation, Token
from fastrank.server.wire import calls

LOGITS = {"Paris is the capital of France": 2.0, "dogs bark at night": -0.5, "BM25 ranks documents": -1.75}


def vector(text):
    size = len(text)
    row = np.array([size % 7 + 1, size % 5 + 1, size % 3 + 1, 1, -1, 0.5, 0.25, 2], np.float32)
    return row / np.linalg.norm(row)


def words(text):
    return len(text.split())


def run(call, pad=None):
    """The result of a call."""
    if isinstance(call, calls.Score):
        pairs = [pair if isinstance(pair, tuple) else ("", pair) for pair in call.pairs]
        raw = [LOGITS.get(document, 0.0) for _query, document in pairs]
        values = [float(1 / (1 + np.exp(-logit))) for logit in raw]
        cost = calls.Cost(sum(words(query) + words(document) + 4 for query, document in pairs))
        lengths = [-words(document) if "cut" in document else words(document) for _query, document in pairs]
        return calls.Scores("toy", values, raw, lengths=lengths, cost=cost)
    cost = calls.Cost(sum(words(text) + 2 for text in call.texts), seconds=0.001)
    if isinstance(call, calls.Embed):
        from fastrank.server.wire.numbers import fitted

        return calls.Vectors("toy", fitted(np.stack(list(map(vector, call.texts))), call.dimensions, pad), cost)
    if isinstance(call, calls.EmbedTokens):
        return calls.TokenVectors("toy", [np.ones((3, 4), np.float32) for _ in call.texts], cost)
    if isinstance(call, calls.EmbedSparse):
        row = np.array([1, 5]), np.array([0.5, 0.25], np.float32)
        return calls.SparseVectors("toy", [row for _ in call.texts], cost)
    if isinstance(call, calls.Match):
        query, document = call.query.split(), call.document.split()
        grid = np.array([[0.9 if a.lower() == b.lower() else 0.1 for b in document] for a in query], np.float32)
        tokens = [[Token(word, None, None) for word in words] for words in (query, document)]
        return calls.Matches("toy", Explanation(call.query, call.document, *tokens, grid).as_dict(), cost)
    pieces = [[calls.Piece(1, word, False, 0, len(word)) for word in text.split()] for text in call.texts]
    return calls.Pieces("toy", pieces, cost)
