"""What a precision means for a model on this machine: which of its files, in which arithmetic, in which batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastrank import store
from fastrank.engine import cpu
from fastrank.engine.batching import Batch
from fastrank.engine.options import Device, Options
from fastrank.engine.session import Session
from fastrank.engine.tokenizer import Tokenizer
from fastrank.errors import ModelLoadError
from fastrank.models.spec import CHECKPOINTS, ModelSpec, Variant, is_checkpoint

ALL_LEVELS = 127  # to each side of 0, of 8 bits
_FEW_LEVELS = 63

_ONNX_INT8 = "int8"  # what the registry calls ready-made graphs begins so: "int8-dynamic", "int8-weights"


class Arithmetic(NamedTuple):
    """How a model runs.

    Attributes:
        path: the graph, or the checkpoint that `build`'s graph points into.
        build: writes the graph; None: `path` is it.
        options: for the session; those asked for, but that int8 stays on the CPU.
        equal: only texts of the same length may share a batch, so that a vector does not depend on its neighbours.
        alone: no texts may, for the same reason.
        name: what it is, for people.
        reason: why it was chosen.
        finished: onnxruntime need not optimize the graph: it would find little, and takes half of the start for it.
    """

    path: Path
    build: Callable[[], bytes] | None
    options: Options
    equal: bool
    alone: bool
    name: str
    reason: str
    finished: bool = False


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
    own = given and not variants
    if options.precision == "auto" or (options.precision == "fp32" and own):
        return spec._replace(variants=variants)
    if options.in_int8:
        able = _checkpoints(variants, given=given, named=variant is not None)
        able += [each for each in variants if each.precision.startswith(_ONNX_INT8)]
    elif options.precision == "fp16":
        able = [each for each in variants if each.precision == "fp16"]
        able += _checkpoints(variants, given=given, named=variant is not None)
        able += [each for each in variants if each.precision == "unknown"]
    else:
        able = [each for each in variants if each.precision in ("fp32", "unknown")]
    if not able:
        known = ", ".join(f"{each.name} ({each.precision})" for each in variants)
        advice = (
            f"; {options.precision} is made of a checkpoint: pass specific_model_path=<a folder with {CHECKPOINTS[0]}>"
            if options.precision != "fp32"
            else ""
        )
        raise ValueError(f"{spec.name} has no files for precision={options.precision!r}. It has: {known}{advice}")
    return spec._replace(variants=tuple(able))


def _checkpoints(variants: Sequence[Variant], *, given: bool, named: bool) -> list[Variant]:
    """The variants that are checkpoints, or may be."""
    able = [each for each in variants if is_checkpoint(each.model)]
    able += [each._replace(model=CHECKPOINTS[0]) for each in variants if each.open and not each.model]
    if given and not (named and able):  # the folder may have one
        able += [Variant(store.GIVEN, "unknown", name, (), ()) for name in CHECKPOINTS]
    return able


def arithmetic(
    spec: ModelSpec, files: store.ModelFiles, head: str, options: Options, cache_dir: str | Path | None
) -> Arithmetic:
    """How these files run in this precision. An int8 checkpoint is made now, if it is wanted and not there.

    Raises:
        ValueError: `files` are of the caller's folder, and none for this precision.
        ModelLoadError: the checkpoint cannot be used.
        OSError: there is no room for an int8 checkpoint, neither in the cache nor in the temporary folder.
    """
    path = files.folder / files.model
    if not is_checkpoint(files.model):
        stated = next((each.precision for each in spec.variants if each.model == files.model), "unknown")
        if options.in_int8 and not stated.startswith(_ONNX_INT8):
            raise ValueError(
                f"precision={options.precision!r} is made of a checkpoint, and {files.folder} has {files.model} and no "
                f"{CHECKPOINTS[0]}. Put it there, or leave `precision` out to run the graph as it is"
            )
        # One scale for all that runs at once is what a dynamically quantized graph has.
        alone = stated == "int8-dynamic"
        return Arithmetic(path, None, options, False, alone, stated, f"{files.model} is what there is")
    from fastrank.engine import quantize  # a ready-made graph does not need it

    if quantize.is_made(files.model):
        return _packed(path, head, options)
    if not options.in_int8:
        return _as_built(path, head, options)
    from fastrank.store.derived import derive

    made = files.folder / quantize.file_name(head)  # where `fastrank pack` puts it
    if not made.is_file():
        made = derive(
            files.folder,
            files.model,
            made.name,
            # With the folder's own tokenizer: what is kept must not depend on who came first.
            lambda target: quantize.quantize(path, head, Tokenizer(files.folder), target, options.threads),
            quantize.is_whole,
            store.find_root(cache_dir),
        )
    return _in_int8(path, made, head, options, f"made of {files.model}")


def _as_built(path: Path, head: str, options: Options) -> Arithmetic:
    """A checkpoint in fp32, or in fp16 where a GPU runs it: a CPU would only cast it back."""
    from fastrank import graph

    name, reason = "fp32", f"a graph built on {path.name}"
    if options.precision == "fp16":
        if Session(Path("a trial of the provider"), options, graph.trial).on_cpu:
            reason += "; fp16 is for GPUs, and this runs on a CPU"
        else:
            name = "fp16"
    build = partial(graph.build, path.parent, head, half=name == "fp16")
    return Arithmetic(path, build, options, False, False, name, reason)


def _packed(path: Path, head: str, options: Options) -> Arithmetic:
    """An int8 checkpoint that stands alone."""
    from fastrank.engine import quantize

    if options.precision in ("fp32", "fp16"):
        raise ValueError(f"{path} is int8, not {options.precision}: leave `precision` out")
    if path.name != quantize.file_name(head):
        raise ModelLoadError(
            f"{path} was packed for another use or by another version of fastrank, which wants "
            f"{quantize.file_name(head)}: pack the model again, with this one"
        )
    if not options.in_int8:
        options = replace(options, precision="int8")  # whose kernels are the CPU's
    return _in_int8(path, path, head, options, f"{path.name} is what there is")


def _in_int8(path: Path, made: Path, head: str, options: Options, reason: str) -> Arithmetic:
    from fastrank import graph

    levels = exact_levels()
    each_row = options.precision == "int8" or levels < ALL_LEVELS
    activations = graph.ActivationQuantization(per_token=each_row, qmax=levels)
    build = partial(graph.build, path.parent, head, weights=made, activations=activations, unpadded=True)
    name = f"int8, a scale {'a token' if each_row else 'a text'}, {levels} levels"
    processor = "adds 8-bit products exactly" if levels == ALL_LEVELS else "adds 8-bit products in 16 bits"
    because = f"{reason}; this processor {processor}"
    return Arithmetic(made, build, options, each_row, not each_row, name, because, finished=True)


@cache
def exact_levels() -> int:
    """How far activations may go to each side of 0: 127, or 63 where the sum of two products has 16 bits only.

    x86 processors without VNNI saturate there. Where the system does not say what it has, a product is tried out.
    """
    if (exact := cpu.adds_bytes_exactly()) is not None:
        return ALL_LEVELS if exact else _FEW_LEVELS
    from fastrank import graph

    session = Session(Path("a trial of 8-bit products"), Options(threads=1, cuda=Device.CPU), graph.trial)
    one = np.full((1, 1), 255, np.int64)
    found = session.run(Batch([0], one, one, one))
    return ALL_LEVELS if np.all(found == graph.TRIAL_ANSWER) else _FEW_LEVELS
