"""A loaded model: texts in, results out.

The path of a text: `tokenizer` (ragged token ids), `batching` (windows, token budget, padding), `session`
(onnxruntime), a head (`pooling`, or one of a task's room), and back into the order in which texts came (`pipeline`).
`loading` puts these together from a model's files.
"""
