"""Everything about a model that is known before it is loaded.

In: a model name, or a model's folder. Out: a `ModelSpec` (`registry`), and what the JSON files of a folder say
(`config`, `sentence_transformers`, `colbert`). Opens no connection and reads no weights.
"""
