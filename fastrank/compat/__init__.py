"""Programs written for FastEmbed, run on fastrank.

In: imports of `fastembed` and calls of its API. Out: its results, limits, number types and errors.
"""
