"""Which of a model's files runs in a precision on this machine, with which arithmetic and batching."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastrank import store
from fastrank.engine import cpu, session
from fastrank.engine.batching import Batch
from fastrank.engine.options import Options
from fastrank.engine.session import Model
from fastrank.engine.tokenizer import Tokenizer
from fastrank.errors import ModelLoadError
from fastrank.models import tokenization
from fastrank.models.spec import CHECKPOINTS, ModelSpec, Variant, is_checkpoint
from fastrank.store.lookup import Lookup

ALL_LEVELS = 127  # the largest magnitude of 8 bits
_FEW_LEVELS = 63
NO_FASTER = "adds 8-bit products in 16 bits (it has no VNNI), so int8 is no faster than fp32: it saves memory only"

_ONNX_INT8 = "int8"  # the registry calls ready-made graphs "int8-dynamic" and "int8-weights"


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
    """

    model: Model
    options: Options
    name: str
    reason: str
    uniform_length: bool = False
    max_batch: int | None = None


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
    elif options.precision == "fp16":
        able = (
            *(each for each in variants if each.precision == "fp16"),
            *checkpoints,
            *(each for each in variants if each.precision == "unknown"),
        )
    else:
        able, names = tuple(each for each in variants if each.precision in ("fp32", "unknown")), None
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
) -> Plan:
    """How these files run in this precision. An int8 checkpoint is made now, if it is wanted and not there.

    `score_tokens` is for the head "logit-score", as `graph.build` has it.

    Raises:
        ValueError: `files` are in the caller's own folder, and none is for this precision.
        ModelLoadError: the checkpoint cannot be used.
        OSError: there is no room for an int8 checkpoint, neither in the cache nor in the temporary folder.
    """
    path = files.folder / files.model
    if score_tokens is not None and not is_checkpoint(files.model):
        raise ModelLoadError(f"{path}: a score from the logits of tokens is made on a checkpoint, {CHECKPOINTS[0]}")
    if not is_checkpoint(files.model):
        stated = next((each.precision for each in spec.variants if each.model == files.model), "unknown")
        if options.in_int8 and not stated.startswith(_ONNX_INT8):
            raise ValueError(
                f"precision={options.precision!r} is made from a checkpoint, and {files.folder} has {files.model} and "
                f"no {CHECKPOINTS[0]}. Put it there, or leave `precision` out to run the graph as it is"
            )
        # A dynamically quantized graph has one scale for all that runs together.
        alone = 1 if stated == "int8-dynamic" else None
        return Plan(Model(path), options, stated, f"the only file available is {files.model}", max_batch=alone)
    if not options.in_int8 and not files.model.startswith("int8-"):
        return _as_built(path, head, options, score_tokens)
    from fastrank.engine import quantize  # the others do not need it

    if quantize.is_made(files.model):
        return _packed(path, head, options, score_tokens)
    if not options.in_int8:
        return _as_built(path, head, options, score_tokens)
    from fastrank.store.derived import derive

    made = files.folder / quantize.file_name(head)  # where `fastrank pack` puts it
    if not made.is_file():
        made = derive(
            files.folder,
            files.model,
            made.name,
            # With the folder's own tokenizer: what is kept must not depend on who came first.
            lambda target: quantize.quantize(
                path, head, Tokenizer(tokenization.read(files.folder, messages=True)), target, options.threads
            ),
            quantize.is_whole,
            store.find_root(cache_dir),
        )
    return _in_int8(path, made, head, options, f"made from {files.model}", score_tokens)


def _as_built(path: Path, head: str, options: Options, score_tokens: tuple[int, int | None] | None) -> Plan:
    """A checkpoint in fp32, or in fp16 if a GPU runs it: a CPU would cast it back."""
    from fastrank import graph

    name, reason = "fp32", f"a graph built on {path.name}"
    if options.precision == "fp16":
        if session.runs_on_gpu(options, graph.trial()):
            name = "fp16"
        else:
            reason += "; fp16 is for GPUs, and this runs on a CPU"
    build = partial(graph.build, path.parent, head, half=name == "fp16", score_tokens=score_tokens)
    return Plan(Model(path, build), options, name, reason)


def _packed(path: Path, head: str, options: Options, score_tokens: tuple[int, int | None] | None) -> Plan:
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
    return _in_int8(path, path, head, options, f"the only file available is {path.name}", score_tokens)


def _in_int8(
    path: Path, made: Path, head: str, options: Options, reason: str, score_tokens: tuple[int, int | None] | None
) -> Plan:
    from fastrank import graph

    levels = exact_levels()
    per_token = options.precision == "int8" or levels < ALL_LEVELS
    activations = graph.ActivationQuantization(per_token=per_token, qmax=levels)
    build = partial(
        graph.build,
        path.parent,
        head,
        weights=made,
        activations=activations,
        unpadded=True,
        score_tokens=score_tokens,
    )
    exact = "adds 8-bit products exactly" if levels == ALL_LEVELS else NO_FASTER
    return Plan(
        Model(made, build, optimize=False),  # onnxruntime would find little, and takes half of the start for it
        options,
        f"int8, activations scaled per {'token' if per_token else 'text'}, {levels} levels",
        f"{reason}; this CPU {exact}",
        uniform_length=per_token,
        max_batch=None if per_token else 1,
    )


@cache
def exact_levels() -> int:
    """The largest magnitude of quantized activations: 127, or 63 where pairs of products are summed in 16 bits.

    x86 CPUs without VNNI saturate there. Where the system does not report the CPU's features, a product is tried.
    """
    if (exact := cpu.adds_bytes_exactly()) is not None:
        return ALL_LEVELS if exact else _FEW_LEVELS
    from fastrank import graph

    one = np.full((1, 1), 255, np.int64)
    result = session.run_once(graph.trial(), Batch([0], one, one, one))
    return ALL_LEVELS if np.all(result == graph.TRIAL_ANSWER) else _FEW_LEVELS
