"""`fastrank serve`: an HTTP server that clients of hosted embedding and rerank APIs can be pointed at.

wire/       the formats of each API family: request -> call, result -> answer. No I/O.
catalog     the models that are served, their names and aliases
runner      runs calls on models: tokenization, scheduling, cancellation
app         routes, limits, keys, errors, logs
process     sockets, signals, draining
"""
