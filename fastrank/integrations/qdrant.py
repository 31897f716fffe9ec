"""qdrant-client's own inference, done by fastrank instead of FastEmbed.

    from fastrank.integrations import qdrant

    qdrant.install()  # before clients are made

From then on `models.Document(text=..., model=...)`, `get_embedding_size`, `upload_points` and everything else a client
embeds in this process uses fastrank's models, whether FastEmbed is installed or not. Vectors are those that FastEmbed
would make (see `fastrank.compat.classes`), so collections made with it stay usable. Others who import FastEmbed are
left alone. Vectors you make yourself need none of this: qdrant-client takes them as they are.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from fastrank.compat import classes
from fastrank.integrations._host import required

_TOGETHER = 256  # points embedded at once where qdrant-client would have started processes: what fastrank reads ahead

_replaced: list[tuple[Any, str, Any]] = []  # while installed: object, attribute, what it was


def install() -> None:
    """Let clients that are made from now on in this process embed with fastrank. Twice does no more than once.

    `parallel=` of `upload_points` and `upload_collection` embeds larger batches in this process instead of starting
    others: threads of one model do the work, so neither copies of the weights nor a `__main__` guard are needed.
    Image models raise ModelNotFoundError.

    Raises:
        ModuleNotFoundError: qdrant-client is not installed.
    """
    if _replaced:
        return
    with required("qdrant"):
        from qdrant_client.embed.model_embedder import ModelEmbedder
        from qdrant_client.fastembed_common import FastEmbedMisc
    names = {
        "TextEmbedding": classes.TextEmbedding,
        "SparseTextEmbedding": classes.SparseTextEmbedding,
        "LateInteractionTextEmbedding": classes.LateInteractionTextEmbedding,
        "ImageEmbedding": classes.ImageEmbedding,
        "LateInteractionMultimodalEmbedding": classes.LateInteractionMultimodalEmbedding,
        "IDF_EMBEDDING_MODELS": {
            row["model"] for row in classes.SparseTextEmbedding.list_supported_models() if row["requires_idf"]
        },
    }
    for module in [module for name, module in sys.modules.items() if name.partition(".")[0] == "qdrant_client"]:
        for name in names.keys() & vars(module).keys():
            _replace(module, name, names[name])
    _replace(FastEmbedMisc, "IS_INSTALLED", new=True)
    for name, value in list(vars(FastEmbedMisc).items()):
        if isinstance(value, set):  # names of models seen so far
            _replace(FastEmbedMisc, name, set())
    _replace(ModelEmbedder, "embed_models_strict", _in_this_process(ModelEmbedder.embed_models_strict))


def uninstall() -> None:
    """Give qdrant-client back what it had. Models that a client has loaded stay in use there."""
    while _replaced:
        setattr(*_replaced.pop())


def _replace(owner: Any, name: str, new: Any) -> None:
    _replaced.append((owner, name, vars(owner)[name]))
    setattr(owner, name, new)


def _in_this_process(embed: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    def embed_models_strict(
        self: Any, raw_models: Iterable[Any], batch_size: int = 8, parallel: int | None = None
    ) -> Iterator[Any]:
        return embed(self, raw_models, batch_size if parallel in (None, 1) else max(batch_size, _TOGETHER))

    return embed_models_strict
