"""`fastrank serve`: an HTTP server for clients of hosted embedding and rerank APIs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from fastrank import environment
from fastrank.cli.options import DEFAULT_MODEL, add_store_options
from fastrank.engine.options import PRECISIONS
from fastrank.errors import how_to_install

_UNITS = {"": 1, "B": 1, "KB": 1000, "MB": 1000**2, "GB": 1000**3, "KIB": 1024, "MIB": 1024**2, "GIB": 1024**3}
_RERANK_WITH = {"dense": "dense", "colbert": "late", "late": "late"}
_TRUE = {"1", "true", "yes", "on"}


def add_to(commands: Any) -> None:
    """Add this command to the parser."""
    parser = commands.add_parser(
        "serve",
        help="an HTTP server that clients of hosted APIs can be pointed at",
        description="Serve models over HTTP, to clients of Cohere, Jina, Voyage, OpenAI, text-embeddings-inference, "
        "vLLM, Ollama and others: all on one port. Every option may also be set by an environment variable: "
        "--max-inputs is FASTRANK_SERVE_MAX_INPUTS.",
        epilog=f"Example: fastrank serve {DEFAULT_MODEL} --rerank-with dense --alias-hosted",
    )
    parser.add_argument(
        "models",
        nargs="*",
        metavar="MODEL",
        help="names `fastrank models` lists, or folders; dense:, rerank:, sparse: or late: in front says its task, "
        f"as repositories of the hub need ({DEFAULT_MODEL})",
    )
    _add_names(parser)
    _add_address(parser)
    _add_limits(parser)
    _add_models(parser)
    parser.set_defaults(run=run, wrong=_read_environment(parser))


def run(options: argparse.Namespace) -> int:
    """Serve until a signal comes."""
    if options.wrong:
        raise ValueError("; ".join(options.wrong))
    try:
        from fastrank.server import start
        from fastrank.server.settings import Settings
        from fastrank.server.wire.fields import Limits
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error.name} is not installed. fastrank serve needs its extra: {how_to_install('server')}"
        ) from error
    settings = Settings(
        limits=Limits(options.max_inputs),
        max_body=options.max_body,
        max_waiting_tokens=options.max_waiting_tokens,
        max_connections=options.max_connections,
        timeout=options.timeout,
        truncate=not options.no_truncate,
        default_role=options.default_prompt,
        keys=_keys(options),
        cors_origins=tuple(options.cors_origin),
        gzip=options.gzip,
        url_prefix=options.url_prefix,
        drain_delay=options.drain_delay,
        drain_timeout=options.drain_timeout,
    )
    defaults = {"rerank": options.default_rerank, "dense": options.default_embed}
    plan = start.Plan(
        models=options.models or [DEFAULT_MODEL],
        arguments={
            "cache_dir": options.cache_dir,
            "threads": options.threads,
            "cuda": options.cuda,
            "precision": options.precision,
            "local_files_only": options.offline,
            "max_length": options.max_length,
        },
        aliases=options.alias,
        alias_hosted=options.alias_hosted,
        rerank_with=[_RERANK_WITH[task] for task in options.rerank_with],  # type: ignore[misc]  # these are tasks
        defaults={task: name for task, name in defaults.items() if name},  # type: ignore[misc]
        fallback=options.default_model,
        host=options.host,
        port=options.port,
        uds=options.uds,
        lazy=options.lazy,
        json_log=options.log_json or not sys.stderr.isatty(),
        uvicorn=_uvicorn(options),
    )
    return start.run(plan, settings)


def _add_names(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("names of models")
    group.add_argument(
        "--alias",
        action="append",
        default=[],
        metavar="NAME=MODEL[:DIM]",
        help="another name for a model; with :1536 its vectors are padded with zeros to 1536 dimensions",
    )
    group.add_argument(
        "--alias-hosted",
        action="store_true",
        help="names of hosted models (rerank-v3.5, text-embedding-3-small, ...) stand for the models here",
    )
    group.add_argument("--default-rerank", metavar="MODEL", help="reranks where no model is named (the first)")
    group.add_argument("--default-embed", metavar="MODEL", help="embeds where no model is named (the first)")
    group.add_argument("--default-model", metavar="MODEL", help="answers for names that are not known (404)")
    group.add_argument(
        "--rerank-with",
        action="append",
        default=[],
        choices=tuple(_RERANK_WITH),
        help="let models that make vectors rerank too: by cosine, or by MaxSim",
    )
    group.add_argument(
        "--default-prompt", choices=("query", "passage"), help="what texts are if clients do not say (neither)"
    )


def _add_address(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("address and access")
    group.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    group.add_argument("--port", type=int, default=8321, help="0: any that is free (%(default)s)")
    group.add_argument("--uds", metavar="PATH", help="listen on a Unix socket instead, with mode 0660")
    group.add_argument("--api-key", action="append", default=[], metavar="KEY", help="ask for a key (FASTRANK_API_KEY)")
    group.add_argument("--api-key-file", metavar="FILE", help="a file with one key a line")
    group.add_argument(
        "--cors-origin", action="append", default=[], metavar="URL", help="let pages of this origin ask; *: of all"
    )
    group.add_argument("--url-prefix", default="", metavar="PATH", help="serve all paths under this one too")
    group.add_argument("--root-path", default="", metavar="PATH", help="the path under which a proxy has this server")
    group.add_argument("--ssl-certfile", metavar="FILE", help="TLS: the certificate")
    group.add_argument("--ssl-keyfile", metavar="FILE", help="TLS: its key")
    group.add_argument("--log-json", action="store_true", help="log JSON on a terminal too")


def _add_limits(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("limits")
    group.add_argument("--max-inputs", type=_positive, default=2048, metavar="N", help="texts a request (%(default)s)")
    group.add_argument("--max-body", type=_size, default=_size("32MiB"), metavar="SIZE", help="of a request (32MiB)")
    group.add_argument(
        "--max-waiting-tokens",
        type=_positive,
        default=1_000_000,
        metavar="N",
        help="tokens that may wait before requests are refused with 429 (%(default)s)",
    )
    group.add_argument("--max-connections", type=_positive, default=1024, metavar="N", help="at a time (%(default)s)")
    group.add_argument("--timeout", type=_seconds, default=120.0, metavar="S", help="of a request (%(default)g)")
    group.add_argument(
        "--no-truncate", action="store_true", help="refuse texts that are too long unless clients let cut"
    )
    group.add_argument("--gzip", action="store_true", help="compress large answers for clients that take it")
    group.add_argument("--drain-delay", type=_seconds, default=0.0, metavar="S", help="accept on after SIGTERM (0)")
    group.add_argument("--drain-timeout", type=_seconds, default=30.0, metavar="S", help="then finish (%(default)g)")


def _add_models(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how models run")
    group.add_argument("--lazy", action="store_true", help="listen first; /ready is 503 until models are loaded")
    group.add_argument("--precision", choices=PRECISIONS, default="auto", help="(%(default)s)")
    group.add_argument("--max-length", type=_positive, metavar="TOKENS", help="truncate texts to this many tokens")
    group.add_argument("--threads", type=_positive, help="CPU threads (default: every core this process may use)")
    group.add_argument("--cuda", choices=("auto", "cuda", "cpu"), default="auto", help="where to run (%(default)s)")
    add_store_options(group)  # type: ignore[arg-type]  # a group has what it needs of a parser


def _read_environment(parser: argparse.ArgumentParser) -> list[str]:
    """Let variables give the defaults of options; what is wrong with them, which other commands need not hear of."""
    wrong = []
    for action in parser._actions:  # noqa: SLF001 - argparse lists its options nowhere else
        value = environment.serve_option(action.dest)
        if value is None or action.dest == "help":
            continue
        if isinstance(action, argparse._StoreTrueAction):  # noqa: SLF001 - the same
            action.default = value.lower() in _TRUE
        elif isinstance(action.default, list) or action.dest == "models":
            action.default = value.split()
        else:
            action.default = value  # argparse converts it as it does an argument
        values = action.default if isinstance(action.default, list) else [action.default]
        if action.choices is not None and not set(values) <= set(action.choices):
            variable = f"FASTRANK_SERVE_{action.dest.upper()}"
            wrong.append(f"{variable}={value} is none of {', '.join(map(str, action.choices))}")
    return wrong


def _keys(options: argparse.Namespace) -> tuple[str, ...]:
    keys = list(options.api_key)
    if (key := environment.api_key()) is not None:
        keys.append(key)
    if options.api_key_file is not None:
        keys += Path(options.api_key_file).read_text(encoding="utf-8").split()
        if not keys:
            raise ValueError(f"--api-key-file {options.api_key_file} has no key")
    return tuple(keys)


def _uvicorn(options: argparse.Namespace) -> dict[str, Any]:
    found = {"root_path": options.root_path, "ssl_certfile": options.ssl_certfile, "ssl_keyfile": options.ssl_keyfile}
    return {name: value for name, value in found.items() if value}


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"must be 0 or more, got {text}")
    return number


def _size(text: str) -> int:
    digits = text.strip().rstrip("iIbBkKmMgG ")
    unit = text.strip()[len(digits) :].strip().upper()
    if unit not in _UNITS or not digits.replace(".", "", 1).isdecimal():
        raise argparse.ArgumentTypeError(f"write a size like 32MiB, not {text!r}")
    return int(float(digits) * _UNITS[unit])
