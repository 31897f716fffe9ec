"""From a model's entry to a loaded model, in a straight line.

    spec -> candidates -> files -> settings -> plan -> session -> LoadedModel

Each task's room has a function `load` that goes this way: `find` takes it to the files, the room resolves its settings
from arguments, registry and folder, and `open_session` takes it from there to a session.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, NamedTuple

from fastrank import store
from fastrank.engine import cpu, precision
from fastrank.engine.options import Options
from fastrank.engine.precision import Plan
from fastrank.engine.session import Session, Use, identity
from fastrank.errors import ModelLoadError
from fastrank.models import registry
from fastrank.models.spec import ModelSpec
from fastrank.store.lookup import Lookup


class Request(NamedTuple):
    """Which model to load, where from, and how to run it."""

    spec: ModelSpec
    lookup: Lookup
    options: Options
    max_length: int | None = None
    special_tokens_in_text: bool = True
    names: tuple[str, ...] | None = None  # of model files to look for in a folder of the caller's own


class Opened(NamedTuple):
    """A model's session, with what pipelines need to know of it."""

    session: Session
    plan: Plan
    output: str | None


def checked(request: Request) -> Request:
    """The request with the variants that can run in its precision, so that a wrong one fails at the call.

    Raises:
        ValueError: there is no such variant, or none for this precision.
    """
    candidates = precision.candidates(request.spec, request.options, request.lookup)
    return request._replace(spec=candidates.spec, names=candidates.names)


def find(request: Request) -> store.ModelFiles:
    """The model's files, fetched if need be.

    Raises:
        ModelNotCachedError, DownloadError, ModelLoadError, IntegrityError, OSError: as `store.locate`.
    """
    files = store.locate(request.spec, request.lookup, request.names)
    registry.note_license(request.spec)
    return files


def open_session(
    request: Request,
    files: store.ModelFiles,
    graph_head: str,
    output: str | None = None,
    extra_inputs: Mapping[str, int] = MappingProxyType({}),
    score_tokens: tuple[int, int | None] | None = None,
    shared: bool = False,
) -> Opened:
    """The session of a model.

    Args:
        request: what was asked for.
        files: where they are.
        graph_head: what to build on a checkpoint: a head of `graph.build`.
        output: the output of an ONNX file to use; None: its first.
        extra_inputs: scalar inputs of the graph beside the tokens.
        score_tokens: for the head "logit-score", as `graph.build` has it.
        shared: take the session of another model in memory that runs the same files in the same way, if there is one.

    Raises:
        ModelLoadError: the files cannot be used.
        ProviderError: a provider that was asked for is not available.
        ValueError: `files` are in the caller's own folder, and none is for this precision.
    """
    plan = precision.plan(
        request.spec,
        files,
        graph_head,
        request.options,
        request.lookup.cache_dir,
        score_tokens,
        Use(output, extra_inputs),
    )
    if shared:
        session = _shared_session(plan, graph_head, extra_inputs)
    else:
        session = Session(plan.model, plan.options, extra_inputs)
    if plan.model.build and not plan.as_exported:
        from fastrank.graph import OUTPUT  # a ready-made graph does not need it

        output = OUTPUT[graph_head]
    return Opened(session, plan, output)


_shared: weakref.WeakValueDictionary[tuple[Any, ...], Session] = weakref.WeakValueDictionary()
_sharing = threading.Lock()


def _shared_session(plan: Plan, graph_head: str, extra_inputs: Mapping[str, int]) -> Session:
    """The session of models that differ only in what they make of its output."""
    head = graph_head if plan.model.build and not plan.as_exported else None
    key = (identity(plan.model.path), plan.model.path, head, plan.name, repr(plan.options), *extra_inputs.items())
    with _sharing:
        session = _shared.get(key)
        if session is None:
            session = _shared[key] = Session(plan.model, plan.options, extra_inputs)
        return session


def info(files: store.ModelFiles, opened: Opened, max_length: int) -> dict[str, Any]:
    """How a model runs, for people to read."""
    session, plan = opened.session, opened.plan
    if plan.max_batch == 1:
        batching = "one text per run"
    else:
        alike = "equal" if plan.uniform_length else "similar"
        batching = f"texts of {alike} length, up to {session.budget} tokens per run"
    return {
        "folder": str(files.folder),
        "file": str(plan.model.path),
        "source": files.origin,
        "precision": plan.name,
        "reason": f"{plan.reason}; this CPU {precision.NO_FASTER}" if _only_saves_memory(opened) else plan.reason,
        "provider": session.provider,
        **({} if session.on_cpu else {"devices": session.devices}),
        "threads": session.threads,
        "batching": batching,
        "max_length": max_length,
    }


def _only_saves_memory(opened: Opened) -> bool:
    """Whether a ready-made int8 graph runs on a CPU that gains no speed by it. Plans made here say so themselves."""
    ready_made = opened.plan.name.startswith("int8-") and not opened.plan.model.build
    return ready_made and opened.session.on_cpu and cpu.adds_bytes_exactly() is False


@contextmanager
def advice(request: Request, files: store.ModelFiles) -> Iterator[None]:
    """Say how to check files that cannot be used.

    Raises:
        ModelLoadError: with the advice.
    """
    try:
        yield
    except ModelLoadError as error:
        if files.variant == store.GIVEN:
            raise
        raise ModelLoadError(
            f"{error}\nIf the files may be damaged, check them: fastrank verify {request.spec.name}"
        ) from error
