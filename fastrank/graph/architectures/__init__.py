"""One small module per architecture: writes the nodes of its encoder and of its own heads.

In: a `Graph` and the checkpoint's `Config`. Out: `Encoded`, the token states that heads read.
"""
