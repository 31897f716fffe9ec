"""One module per architecture, named after its `model_type`; `graph` finds it by that name.

A module offers `encoder(Graph, Config) -> Encoded`, which writes the inputs and the layers, and a function for each
head with weights of its own, `(Graph, Config, Encoded) -> None`: `masked_lm`, `sequence_classification`,
`logit_score`, `token_weights`.
`WITHOUT_HEADS` names those of the shared heads (`encoder`, `attention`, `colbert` ...) that make no sense for it, or
that it does not write.
`IN_INT4` is true where 4-bit weights were measured and pay.
Where there are `IGNORED_FIELDS`, a field of `config.json` that is neither read nor in them is refused by name.
"""
