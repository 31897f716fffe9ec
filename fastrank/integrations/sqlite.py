"""SQLite: a table of texts that is searched by words (FTS5) and by meaning (sqlite-vec), in one file and one process.

>>> import sqlite3
>>> from fastrank.integrations.sqlite import FastrankSQLite
>>> notes = FastrankSQLite(sqlite3.connect("notes.db"), model_name="sentence-transformers/all-MiniLM-L6-v2")
>>> notes.add(["Bees return to the valley.", "A baker finds a body in the flour."])
[1, 2]
>>> notes.search("insects", k=1)
[Hit(id=1, text='Bees return to the valley.', score=...)]

Three tables of SQLite's own: NAME has the texts, NAME_words is FTS5 (kept in step by triggers), NAME_vectors is a vec0
table of sqlite-vec; your own SQL may join them. The model is loaded once per process, at its first use.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from fastrank.dense.text_embedding import TextEmbedding
from fastrank.integrations._host import required
from fastrank.integrations._models import shared
from fastrank.integrations._search import Hit, Method, rows, search, table_name

with required("sqlite"):
    import sqlite_vec

__all__ = ["FastrankSQLite", "Hit"]

_TABLES = """
CREATE TABLE IF NOT EXISTS {name} (id INTEGER PRIMARY KEY, text TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS {name}_model (model TEXT NOT NULL);
CREATE VIRTUAL TABLE IF NOT EXISTS {name}_words
    USING fts5(text, content='{name}', content_rowid='id', tokenize='{tokenize}');
CREATE TRIGGER IF NOT EXISTS {name}_added AFTER INSERT ON {name} BEGIN
    INSERT INTO {name}_words(rowid, text) VALUES (new.id, new.text);
END;
CREATE TRIGGER IF NOT EXISTS {name}_deleted AFTER DELETE ON {name} BEGIN
    INSERT INTO {name}_words({name}_words, rowid, text) VALUES ('delete', old.id, old.text);
    DELETE FROM {name}_vectors WHERE id = old.id;
END;
CREATE VIRTUAL TABLE IF NOT EXISTS {name}_vectors
    USING vec0(id INTEGER PRIMARY KEY, vector float[{dim}] distance_metric=cosine);
"""


class FastrankSQLite:
    """A table of texts, searched by words, by meaning, or by both.

    Args:
        connection: of `sqlite3`, or of a module with the same calls such as `pysqlite3`; it must be able to load
            extensions, which some builds of Python leave out.
        name: of the table, made if it is not there.
        model_name: a model of `fastrank.TextEmbedding`. A table keeps the name, and refuses another model.
        tokenize: of FTS5, for a new table; "porter unicode61" stems English, "trigram" finds parts of words.
        **options: further arguments of `fastrank.TextEmbedding`, such as `threads` and `precision`.

    Raises:
        RuntimeError: this Python's sqlite3 cannot load extensions.
        ModelNotFoundError: no such model; the message lists similar names.
        TypeError, ValueError: as `fastrank.TextEmbedding`; `name` is no name, or the table is of another model.
    """

    def __init__(
        self,
        connection: Any,
        name: str = "documents",
        model_name: str = "BAAI/bge-small-en-v1.5",
        *,
        tokenize: str = "porter unicode61",
        **options: Any,
    ) -> None:
        self.connection = connection
        self.name = table_name(name)
        self.model = shared(TextEmbedding, model_name, **options)
        _load_extension(connection)
        script = _TABLES.format(name=name, dim=self.model.embedding_size, tokenize=tokenize.replace("'", "''"))
        connection.executescript(script)
        known = [row[0] for row in connection.execute(f"SELECT model FROM {name}_model")]  # noqa: S608 - a checked name
        if known and known != [self.model.model_name]:
            raise ValueError(f"The vectors of {name} are those of {known[0]}; for {model_name} make a table of its own")
        if not known:
            with connection:
                connection.execute(f"INSERT INTO {name}_model VALUES (?)", (self.model.model_name,))  # noqa: S608

    def add(self, texts: str | Iterable[str], ids: Iterable[int] | None = None) -> list[int]:
        """Add texts and their vectors in one transaction: all or none.

        Args:
            texts: one text, or several.
            ids: one for each; None: SQLite's own.

        Returns:
            The ids.

        Raises:
            TypeError: a text is no string, or an id no integer; the message says which.
            ValueError: there are more or fewer ids than texts, or one is given twice.
            sqlite3.IntegrityError: an id is taken.
        """
        listed, numbers = rows(texts, ids)
        vectors = [_blob(vector) for vector in self.model.passage_embed(listed)]
        added = []
        with self.connection:
            for position, (text, vector) in enumerate(zip(listed, vectors, strict=True)):
                number = None if numbers is None else numbers[position]
                insert = f"INSERT INTO {self.name}(id, text) VALUES (?, ?)"  # noqa: S608 - a checked name
                added.append(self.connection.execute(insert, (number, text)).lastrowid)
                insert = f"INSERT INTO {self.name}_vectors(id, vector) VALUES (?, ?)"  # noqa: S608
                self.connection.execute(insert, (added[-1], vector))
        return added

    def delete(self, ids: int | Iterable[int]) -> None:
        """Delete rows by their ids; ids that are not there are ignored."""
        wanted = [(number,) for number in ([ids] if isinstance(ids, int) else ids)]
        with self.connection:
            self.connection.executemany(f"DELETE FROM {self.name} WHERE id = ?", wanted)  # noqa: S608

    def search(self, query: str, k: int = 10, method: Method = "hybrid", *, candidates: int = 100) -> list[Hit]:
        """The best rows, best first.

        Args:
            query: a text; it needs no syntax of FTS5.
            k: how many rows.
            method: "words" (any of them, by FTS5's BM25), "dense" (by cosine), or "hybrid": both, fused by rank.
            candidates: how many rows of each are fused.

        Raises:
            TypeError: the query is no string.
            ValueError: `k` or `candidates` is below 1, or there is no such method.
        """
        found = search(query, k, method, candidates).run(self._words, self._dense)
        return [Hit(number, self._text(number), score) for number, score in found]

    def _words(self, query: str, k: int) -> list[tuple[int, float]]:
        words = re.findall(r"\w+", query)
        if not words:
            return []
        match = " OR ".join(f'"{word}"' for word in dict.fromkeys(words))
        select = f"SELECT rowid, -rank FROM {self.name}_words WHERE {self.name}_words MATCH ? ORDER BY rank LIMIT ?"  # noqa: S608
        return list(self.connection.execute(select, (match, k)))

    def _dense(self, query: str, k: int) -> list[tuple[int, float]]:
        vector = _blob(next(self.model.query_embed(query)))
        select = f"SELECT id, 1 - distance FROM {self.name}_vectors WHERE vector MATCH ? AND k = ? ORDER BY distance"  # noqa: S608
        return list(self.connection.execute(select, (vector, k)))

    def _text(self, number: int) -> str:
        select = f"SELECT text FROM {self.name} WHERE id = ?"  # noqa: S608 - a checked name
        text: str = self.connection.execute(select, (number,)).fetchone()[0]
        return text


def _load_extension(connection: Any) -> None:
    if not hasattr(connection, "enable_load_extension"):
        raise RuntimeError(
            "This Python's sqlite3 cannot load extensions. Connect with another build of it: "
            "pip install pysqlite3-binary, then pysqlite3.connect(...) instead of sqlite3.connect(...)"
        )
    connection.enable_load_extension(True)
    try:
        sqlite_vec.load(connection)
    finally:
        connection.enable_load_extension(False)


def _blob(vector: Any) -> bytes:
    """A vector as sqlite-vec reads it: float32 in little-endian order."""
    return np.asarray(vector, "<f4").tobytes()
