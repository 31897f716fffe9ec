"""Registry entries of custom models, made by `add_custom_model`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import MappingProxyType

from fastrank.models.spec import NAME, PATH, FileSpec, HubSource, ModelSource, ModelSpec, Task, Variant, is_checkpoint


def custom_spec(
    name: str,
    task: str,
    settings: Task,
    sources: ModelSource | None,
    *,
    model_file: str | None = None,
    additional_files: Sequence[str] = (),
    description: str = "",
    license: str = "",  # noqa: A002 - FastEmbed's name
    max_length: int | None = None,
) -> ModelSpec:
    """The entry of a custom model: one open variant, nothing pinned.

    Args:
        name: the model's name, and the repository's if `sources` is None.
        task: what the model is for.
        settings: settings of this task.
        sources: the repository.
        model_file: graph or checkpoint in the repository; None: chosen from the repository's files.
        additional_files: further files that are needed.
        description: shown by `list_supported_models`.
        license: shown in lists.
        max_length: limit in tokens; None: as the model's folder says.

    Raises:
        ValueError: a name or path could lead out of a folder, or only a `url` is given.
    """
    hub = name if sources is None else sources.hf
    if hub is None:
        raise ValueError(
            f"{name}: fastrank fetches models from the Hugging Face hub (sources=ModelSource(hf=...)) and unpacks no "
            "archives. For files on this machine pass specific_model_path to the constructor."
        )
    paths = [*([model_file] if model_file else []), *additional_files]
    for value, pattern, what in [
        (name, NAME, "model"),
        (hub, NAME, "sources.hf"),
        *((path, PATH, "file") for path in paths),
    ]:
        if not re.fullmatch(pattern, value):
            example = "a relative path with forward slashes" if what == "file" else "like 'organisation/model'"
            raise ValueError(f"{what} {value!r} is not valid: it must be {example}")
    checkpoint = ["config.json"] if is_checkpoint(model_file or "") else []
    files = tuple(FileSpec(path, None, None) for path in dict.fromkeys([*paths, *checkpoint, "tokenizer.json"]))
    form = "own" if model_file is None else "safetensors" if checkpoint else "onnx"
    variant = Variant(form, "unknown", model_file or "", files, (HubSource(hub, None),), open=True)
    return ModelSpec(
        name,
        description,
        license,
        (),
        MappingProxyType({task: settings}),
        (variant,),
        max_length=max_length,
    )
