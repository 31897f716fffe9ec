"""`fastrank serve`: an HTTP server that clients of hosted embedding and rerank APIs can be pointed at.

In: requests of the Cohere, Jina, Voyage, OpenAI, TEI, vLLM, Ollama and NIM APIs. Out: answers their clients accept.

wire/       the formats of each API family: request -> call, result -> answer. No I/O.
catalog     the models that are served, their names and aliases
runner      runs calls on models: tokenization, scheduling, cancellation
app         routes, limits, keys, errors, logs
process     sockets, signals, draining
"""
