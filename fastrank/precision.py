"""What a precision means for a model on this machine: which of its files, in which arithmetic, in which batches."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastrank import graph, processors, quantize, store
from fastrank.errors import ModelLoadError
from fastrank.options import Device, Options
from fastrank.registry import ModelSpec, Variant
from fastrank.schedule import Batch
from fastrank.session import Session
from fastrank.store.derived import derive
from fastrank.tokenizer import Tokenizer

ALL_LEVELS = 127  # to each side of 0, of 8 bits
_FEW_LEVELS = 63

_CHECKPOINT = "model.safetensors"
_ONNX_INT8 = "int8"  # what the registry calls ready-made graphs begins so: "int8-dynamic", "int8-weights"


class Arithmetic(NamedTuple):
    """How a model runs.

    Attributes:
        path: the graph, or the checkpoint that `build`'s graph points into.
        build: writes the graph; None: `path` is it.
        equal: only texts of the same length may share a batch, so that a vector does not depend on its neighbours.
        alone: no texts may, for the same reason.
        name: what it is, for people.
        reason: why it was chosen.
    """

    path: Path
    build: Callable[[], bytes] | None
    equal: bool
    alone: bool
    name: str
    reason: str


def narrowed(spec: ModelSpec, options: Options, variant: str | None, *, given: bool) -> ModelSpec:
    """The model with those of its variants that can run in this precision, best first; at least one.

    Args:
        spec: the model.
        options: say the precision.
        variant: a variant that was named: then no other.
        given: the files are in a folder of the caller's, so the registry does not know which there are.

    Raises:
        ValueError: there are none, or the one that was named cannot.
    """
    variants = spec.variant(variant)
    if options.precision == "auto":
        return spec._replace(variants=variants)
    if options.in_int8:
        able = [each for each in variants if graph.is_checkpoint(each.model)]
        able += [each._replace(model=_CHECKPOINT) for each in variants if each.open and not each.model]
        able += [each for each in variants if each.precision.startswith(_ONNX_INT8)]
        if given and not able:  # the folder may have one
            able = [Variant("given", "unknown", _CHECKPOINT, (), ())]
    else:
        able = [each for each in variants if each.precision in (options.precision, "unknown")]
    if not able:
        known = ", ".join(f"{each.name} ({each.precision})" for each in variants)
        advice = (
            f"; int8 is made of a checkpoint: pass specific_model_path=<a folder with {_CHECKPOINT}>"
            if options.in_int8
            else ""
        )
        raise ValueError(f"{spec.name} has no files for precision={options.precision!r}. It has: {known}{advice}")
    return spec._replace(variants=tuple(able))


def arithmetic(
    spec: ModelSpec,
    files: store.ModelFiles,
    head: str,
    options: Options,
    tokenizer: Tokenizer,
    cache_dir: str | Path | None,
) -> Arithmetic:
    """How these files run in this precision. An int8 checkpoint is made now, if it is wanted and not there.

    Raises:
        ValueError: `files` are of the caller's folder, and none for this precision.
        ModelLoadError: the checkpoint cannot be used.
    """
    path = files.folder / files.model
    packed = files.folder / quantize.file_name(head)
    ready = packed.is_file()  # `fastrank pack` has made it
    if quantize.is_made(files.model) and not ready:
        raise ModelLoadError(f"{path} was packed by another version of fastrank; pack the model again, with this one")
    if not graph.is_checkpoint(files.model):
        stated = next((each.precision for each in spec.variants if each.name == files.variant), "unknown")
        if options.in_int8 and files.variant == "given":
            raise ValueError(
                f"precision={options.precision!r} is made of a checkpoint, and {files.folder} has {files.model} and no "
                f"{_CHECKPOINT}. Put it there, or leave `precision` out to run the graph as it is"
            )
        # One scale for all that runs at once is what a dynamically quantized graph has.
        return Arithmetic(path, None, False, stated == "int8-dynamic", stated, f"{files.model} is what there is")
    if not options.in_int8 and not ready:
        build = partial(graph.build, path.parent, head)
        return Arithmetic(path, build, False, False, "fp32", f"a graph built on {files.model}")
    levels = exact_levels()
    each_row = options.precision != "int8-fast" or levels < ALL_LEVELS
    made = packed
    if not ready:
        made = derive(
            files.folder,
            files.model,
            quantize.file_name(head),
            lambda target: quantize.quantize(path, head, tokenizer, target),
            store.root(cache_dir),
        )
    build = partial(
        graph.build, files.folder, head, weights=made, rounding=graph.Rounding(each_row=each_row, levels=levels)
    )
    name = f"int8, a scale {'a token' if each_row else 'a text'}, {levels} levels"
    processor = "adds 8-bit products exactly" if levels == ALL_LEVELS else "adds 8-bit products in 16 bits"
    return Arithmetic(made, build, each_row, not each_row, name, f"made of {files.model}; this processor {processor}")


@cache
def exact_levels() -> int:
    """How far activations may go to each side of 0: 127, or 63 where the sum of two products has 16 bits only.

    x86 processors without VNNI saturate there. Where the system does not say what it has, a product is tried out.
    """
    if (exact := processors.adds_bytes_exactly()) is not None:
        return ALL_LEVELS if exact else _FEW_LEVELS
    session = Session(Path("a trial of 8-bit products"), Options(threads=1, cuda=Device.CPU), graph.trial)
    one = np.full((1, 1), 255, np.int64)
    found = session.run(Batch([0], one, one, one))
    return ALL_LEVELS if np.all(found == graph.TRIAL_ANSWER) else _FEW_LEVELS
