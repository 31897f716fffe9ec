"""Which of a model's files runs in a precision on this machine, with which arithmetic and batching."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fastrank import store
from fastrank.engine import cpu, session
from fastrank.engine.batching import Batch
from fastrank.engine.options import Options
from fastrank.engine.session import Model, Use
from fastrank.engine.tokenizer import Tokenizer
from fastrank.errors import ModelLoadError
from fastrank.models import tokenization
from fastrank.models.spec import CHECKPOINTS, ModelSpec, Variant, is_checkpoint
from fastrank.store.lookup import Lookup

NO_FASTER = "has no VNNI, so int8 is little or no faster than fp32: it saves memory only"

if TYPE_CHECKING:
    from fastrank.graph import ActivationQuantization

_ONNX_INT8 = "int8"  # the registry calls ready-made graphs "int8-dynamic" and "int8-weights"
_FLOAT32 = ("fp32", "unknown")
_MADE = ("int8-", "uint8-", "int4-")  # begin the names of files that `engine.quantize` makes


_FIRST_OUTPUT = Use()


class Candidates(NamedTuple):
    """Files that can run in a precision.

    Attributes:
        spec: the model with the variants that can, best first.
        names: the model files to look for in the caller's own folder; None: any.
    """

    spec: ModelSpec
    names: tuple[str, ...] | None


class Plan(NamedTuple):
    """How a model runs.

    Attributes:
        model: what the session opens.
        options: for the session; those asked for, but int8 stays on the CPU.
        uniform_length: only texts of the same length share a batch, so that a vector does not depend on its neighbours.
        max_batch: 1: no texts do, for the same reason; None: any number.
        name: the precision, for people.
        reason: why it was chosen.
        as_exported: the outputs are those of an ONNX file, not those of a head of `graph.build`.
    """

    model: Model
    options: Options
    name: str
    reason: str
    uniform_length: bool = False
    max_batch: int | None = None
    as_exported: bool = False


def candidates(spec: ModelSpec, options: Options, lookup: Lookup) -> Candidates:
    """The variants of a model that can run in this precision; at least one, or names to look for.

    Raises:
        ValueError: there are none, or the one that was named cannot.
    """
    variants, own, named = spec.variant(lookup.variant), lookup.path is not None, lookup.variant is not None
    if options.precision == "auto" or (options.precision == "fp32" and own and not variants):
        return Candidates(spec._replace(variants=variants), None)
    checkpoints = tuple(each for each in map(_as_checkpoint, variants) if each)
    names: tuple[str, ...] | None = CHECKPOINTS
    if options.in_int8:
        able = (*checkpoints, *(each for each in variants if each.precision.startswith(_ONNX_INT8)))
        graphs = tuple(each for each in variants if not is_checkpoint(each.model) and each.precision in _FLOAT32)
        if own:
            names = (*CHECKPOINTS, *(each.model for each in graphs if each.model))
        able = able or (() if own else graphs)
    elif options.precision == "int4":
        able = checkpoints
    elif options.precision == "fp16":
        able = (
            *(each for each in variants if each.precision == "fp16"),
            *checkpoints,
            *(each for each in variants if each.precision == "unknown"),
        )
    else:
        able = tuple(each for each in variants if each.precision in _FLOAT32 or each.model in CHECKPOINTS)
        names = None
    if named and checkpoints:
        names = None
    if not able and not (own and names):
        listed = ", ".join(f"{each.name} ({each.precision})" for each in variants)
        advice = (
            f"; {options.precision} is made from a checkpoint: pass specific_model_path=<a folder with "
            f"{CHECKPOINTS[0]}>"
            if options.precision != "fp32"
            else ""
        )
        raise ValueError(f"{spec.name} has no files for precision={options.precision!r}. It has: {listed}{advice}")
    return Candidates(spec._replace(variants=able), names if own else None)


def _as_checkpoint(variant: Variant) -> Variant | None:
    """A variant that is a checkpoint, or may have one; None: it is not."""
    if is_checkpoint(variant.model):
        return variant
    return variant._replace(model=CHECKPOINTS[0]) if variant.open and not variant.model else None


def plan(
    spec: ModelSpec,
    files: store.ModelFiles,
    head: str,
    options: Options,
    cache_dir: str | Path | None,
    score_tokens: tuple[int, int | None] | None = None,
    use: Use = _FIRST_OUTPUT,
) -> Plan:
    """How these files run in this precision. Quantized weights are made now, if they are wanted and not there.

    `score_tokens` is for the head "logit-score", as `graph.build` has it; `use` is for ONNX graphs.

    Raises:
        ValueError: `files` are in the caller's own folder, and none is for this precision.
        ModelLoadError: the checkpoint cannot be used.
        OSError: there is no room for an int8 checkpoint, neither in the cache nor in the temporary folder.
    """
    path = files.folder / files.model
    if score_tokens is not None and not is_checkpoint(files.model):
        raise ModelLoadError(f"{path}: a score from the logits of tokens is made on a checkpoint, {CHECKPOINTS[0]}")
    if not is_checkpoint(files.model):
        return _ready_made(spec, files, options, cache_dir, use)
    from fastrank import graph

    build = partial(graph.build, path.parent, head, score_tokens=score_tokens)
    if not options.quantized and not files.model.startswith(_MADE):
        return _as_built(path, build, options)
    from fastrank.engine import quantize  # the others do not need it

    if packed := quantize.form_of(files.model):
        if path.name != quantize.file_name(head, packed):
            raise ModelLoadError(
                f"{path} was packed for another use or by another version of fastrank, which wants "
                f"{quantize.file_name(head, packed)}: pack the model again, with this one"
            )
        return _packed(files, build, options, head, cache_dir)
    if not options.quantized:
        return _as_built(path, build, options)
    if options.precision == "int4":
        _refuse_int4_of_encoders(path.parent)
    form = _form(options)

    def write(target: Path) -> None:
        # With the folder's own tokenizer: what is kept must not depend on who came first.
        tokenizer = Tokenizer(tokenization.read(files.folder, messages=True))
        quantize.quantize(path, head, tokenizer, target, options.threads, form)

    made = files.folder / quantize.file_name(head, form)  # where `fastrank pack` puts it
    if not made.is_file():
        made = _derived(files, made.name, write, cache_dir)
    return _quantized(made, build, options, f"made from {files.model}")


def _ready_made(
    spec: ModelSpec, files: store.ModelFiles, options: Options, cache_dir: str | Path | None, use: Use
) -> Plan:
    """An ONNX graph."""
    stated = next((each.precision for each in spec.variants if each.model == files.model), "unknown")
    if options.in_int8 and not stated.startswith(_ONNX_INT8):
        return _exported_in_int8(files, options, cache_dir, use)
    if options.quantized and not stated.startswith(_ONNX_INT8):
        raise ValueError(
            f"precision={options.precision!r} is made from a checkpoint, and {files.folder} has {files.model} and "
            f"no {CHECKPOINTS[0]}. Put it there, use precision='int8', or leave `precision` out to run the graph as "
            "it is"
        )
    # A dynamically quantized graph has one scale for all that runs together.
    alone = 1 if stated == "int8-dynamic" else None
    model = Model(files.folder / files.model)
    return Plan(model, options, stated, f"the only file available is {files.model}", max_batch=alone)


def _exported_in_int8(files: store.ModelFiles, options: Options, cache_dir: str | Path | None, use: Use) -> Plan:
    """An ONNX graph whose products are int8."""
    from fastrank.engine import quantize_onnx
    from fastrank.graph import onnx_int8

    path, form = files.folder / files.model, _form(options)

    def write(target: Path) -> None:
        tokenizer = Tokenizer(tokenization.read(files.folder))
        quantize_onnx.quantize_onnx(path, use, tokenizer, target, options.threads, form)

    name = quantize_onnx.file_name(files.model, form)
    made = _derived(files, name, write, cache_dir)
    arithmetic = _arithmetic(options)
    return Plan(
        Model(made, partial(onnx_int8.build, made, arithmetic.activations)),
        options,
        arithmetic.name,
        _with_nearness(f"made from {files.model}", made, "results", arithmetic.reason),
        uniform_length=arithmetic.alike,
        max_batch=1 if arithmetic.alone else None,
        as_exported=True,
    )


def _with_nearness(reason: str, made: Path, of: str, more: str) -> str:
    from fastrank.engine import quantize

    if near := quantize.nearness(made):
        reason += f", {near.mean:.4f} the cosine of its {of} to fp32 on calibration texts"
    return f"{reason}; {more}"


def _derived(files: store.ModelFiles, name: str, write: Callable[[Path], None], cache_dir: str | Path | None) -> Path:
    from fastrank.engine import quantize
    from fastrank.store.derived import derive

    return derive(files.folder, files.model, name, write, quantize.is_whole, store.find_root(cache_dir))


def _form(options: Options) -> str:
    """The form of weights for a precision on this CPU."""
    from fastrank.engine import quantize

    if options.precision == "int4":
        return quantize.IN_INT4
    return quantize.INT8 if adds_exactly() else quantize.UINT8


def _refuse_int4_of_encoders(folder: Path) -> None:
    from fastrank import graph

    if not graph.in_int4(kind := graph.model_type(folder)):
        able = ", ".join(each for each in graph.model_types() if graph.in_int4(each))
        raise ValueError(
            f"precision='int4' is for decoders ({able}), most of whose memory are weights; {folder} has a model of "
            f"the type {kind!r}: use precision='int8'"
        )


def _as_built(path: Path, build: Callable[..., bytes], options: Options) -> Plan:
    """A checkpoint in fp32, or in fp16 if a GPU runs it: a CPU would cast it back."""
    from fastrank import graph

    name, reason = "fp32", f"a graph built on {path.name}"
    if options.precision == "fp16":
        if session.runs_on_gpu(options, graph.trial()):
            name = "fp16"
        else:
            reason += "; fp16 is for GPUs, and this runs on a CPU"
    build = partial(build, half=name == "fp16")
    return Plan(Model(path, build, partial(build, plain=True)), options, name, reason)


def _packed(
    files: store.ModelFiles,
    build: Callable[..., bytes],
    options: Options,
    head: str,
    cache_dir: str | Path | None,
) -> Plan:
    """A quantized checkpoint that stands alone."""
    from fastrank.engine import quantize

    path = files.folder / files.model
    packed = quantize.form_of(path.name)
    name = "int4" if packed == quantize.IN_INT4 else "int8"
    if options.precision not in ("auto", name, f"{name}-fast"):
        raise ValueError(f"{path} is {name}, not {options.precision}: leave `precision` out")
    if not options.quantized:
        options = replace(options, precision=name)  # whose kernels are the CPU's
    made, form = path, _form(options)
    if packed != form:  # made where products are added in another way
        made = _derived(files, quantize.file_name(head, form), partial(quantize.change_sign, path), cache_dir)
    return _quantized(made, build, options, f"the only file available is {path.name}")


def _quantized(made: Path, build: Callable[..., bytes], options: Options, reason: str) -> Plan:
    """How quantized weights run: those of `made`."""
    arithmetic = _arithmetic(options)
    unpadded = arithmetic.alike or arithmetic.alone
    build = partial(build, weights=made, activations=arithmetic.activations, unpadded=unpadded)
    return Plan(
        Model(made, build, optimize=False),  # onnxruntime would find little, and takes half of the start for it
        options,
        arithmetic.name,
        _with_nearness(reason, made, "token states", arithmetic.reason),
        uniform_length=arithmetic.alike,
        max_batch=1 if arithmetic.alone else None,
    )


class _Arithmetic(NamedTuple):
    """How quantized weights are multiplied by: with which texts together (of the same length, or none), and why."""

    activations: ActivationQuantization
    name: str
    reason: str
    alike: bool = False
    alone: bool = False


def _arithmetic(options: Options) -> _Arithmetic:
    """What is best for a precision on this CPU, as docs/precision.md has measured it."""
    from fastrank.graph import ActivationQuantization

    exact = adds_exactly()
    if options.precision == "int4":
        rounded = "rounded to 8 bits in blocks" if exact else "in fp32"
        reason = "which is fast with VNNI" if exact else "which is faster without VNNI"
        return _Arithmetic(ActivationQuantization(of_int4=exact), f"int4, activations {rounded}", reason)
    reason = (
        "this CPU adds 8-bit products exactly" if exact else "unsigned weights, whose products this CPU adds exactly"
    )
    if options.precision == "int8-fast" and exact:
        return _Arithmetic(
            ActivationQuantization(per_token=False), "int8, activations scaled per text", reason, alone=True
        )
    if not exact:
        reason += f"; it {NO_FASTER}"
    if options.precision == "int8-fast":
        reason += "; int8-fast would be no faster on it, so this is int8"
    return _Arithmetic(ActivationQuantization(), "int8, activations scaled per token", reason, alike=True)


@cache
def adds_exactly() -> bool:
    """Whether the CPU adds products of unsigned and signed bytes exactly; else their sums saturate at 16 bits.

    x86 CPUs without VNNI saturate. Where the system does not report the CPU's features, a product is tried.
    """
    if (exact := cpu.adds_bytes_exactly()) is not None:
        return exact
    from fastrank import graph

    one = np.full((1, 1), 255, np.int64)
    result = session.run_once(graph.trial(), Batch([0], one, one, one))
    return bool(np.all(result == graph.TRIAL_ANSWER))
