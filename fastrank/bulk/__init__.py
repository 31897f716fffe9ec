"""Bulk embedding on other people's engines (extra `bulk`).

In: batches of rows in Arrow, pandas, polars or dicts; or files. Out: the same batches with a column more; or Parquet.

`Embedder` is a callable that is pickled as its configuration, for engines that schedule: Ray Data, Spark, Daft ...
`plan` needs no engine: it cuts files into units, each of which becomes one file, and does not do again what is done.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastrank.bulk.embedder import Embedder
    from fastrank.bulk.files import Done, Plan, Unit, plan
    from fastrank.errors import BulkError

__all__ = ["BulkError", "Done", "Embedder", "Plan", "Unit", "plan"]

_HOMES = {"BulkError": "errors", "Embedder": "bulk.embedder"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = importlib.import_module(f"fastrank.{_HOMES.get(name, 'bulk.files')}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "pyarrow":
            raise
        from fastrank.errors import how_to_install

        raise ModuleNotFoundError(
            f"pyarrow is not installed. Run: {how_to_install('bulk')}", name=error.name
        ) from error
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__]
