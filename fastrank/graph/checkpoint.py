"""Find the tensors of a checkpoint: in `model.safetensors`, or in the shards that an index lists.

Format of the index (https://huggingface.co/docs/huggingface_hub/package_reference/serialization): a JSON object whose
`weight_map` names a file for each tensor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from fastrank.errors import ModelLoadError
from fastrank.graph.safetensors import Tensor, read_header
from fastrank.models.config import read_object

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SINGLE: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"
MAX_SHARDS: Final = 1_000


class Checkpoint(NamedTuple):
    """The tensors of a checkpoint.

    Attributes:
        path: The file or the index, for error messages.
        tensors: By name. Their files lie in one folder: that of `path`, after links are resolved.
    """

    path: Path
    tensors: Mapping[str, Tensor]


def read(folder: Path) -> Checkpoint:
    """The checkpoint in a folder; as in transformers, a single file is preferred to an index.

    Raises:
        ModelLoadError: The folder has neither, or a file is damaged or leads out of the folder.
    """
    single, index = folder / SINGLE, folder / INDEX
    if index.is_file() and not single.exists():
        return _sharded(index)
    if single.is_symlink() and single.is_file():  # as in huggingface_hub's cache
        single = single.resolve()  # onnxruntime follows no link out of a folder
    return Checkpoint(single, read_header(single))


def _sharded(index: Path) -> Checkpoint:
    listed = read_object(index).get("weight_map")
    if not isinstance(listed, dict) or not all(isinstance(file, str) for file in listed.values()):
        raise ModelLoadError(f"{index}: weight_map must be an object that names a file for each tensor")
    files = dict.fromkeys(listed.values())
    if len(files) > MAX_SHARDS:
        raise ModelLoadError(f"{index}: weight_map names {len(files)} files; at most {MAX_SHARDS} are read")
    shards = {file: read_header(_beside(index, file)) for file in files}
    for name, file in listed.items():
        if name not in shards[file]:
            raise ModelLoadError(f"{index}: tensor {name!r:.200} should be in {file!r:.200}, which has no such tensor")
    return Checkpoint(index, {name: shards[file][name] for name, file in listed.items()})


def _beside(index: Path, file: str) -> Path:
    """A shard beside the index; in huggingface_hub's cache both are links into one other folder."""
    where = f"{index}: weight_map names the file {file!r:.200}"
    if file in {"", ".", ".."} or any(character in file for character in "/\\:\0"):
        raise ModelLoadError(f"{where}; only the name of a file beside the index is followed")
    shard = index.parent / file
    if not shard.is_file():
        raise ModelLoadError(f"{where}, which is missing")
    if shard.resolve().parent != index.resolve().parent:
        raise ModelLoadError(f"{where}, a link that leaves the folder")
    return shard.resolve()
