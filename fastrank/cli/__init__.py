"""The `fastrank` command: rerank, explain, embed, eval, serve, models, download, verify, pack, cache, info.

In: arguments, files, standard input. Out: an exit status, tables or JSON, files. Each command has a file here.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

import fastrank
from fastrank.cli import (
    cache,
    embed,
    evaluate,
    explain,
    info,
    messages,
    models,
    pack,
    rerank,
    serve,
    streams,
    terminal,
    verify,
)
from fastrank.errors import FastrankError

_COMMANDS = (rerank, explain, embed, evaluate, serve, models, verify, pack, cache, info)
_NAMESAKE = """\
fastrank: fastrank/__init__.py is not this project's: another project of the name fastrank (learning to rank)
was installed over fastrank-onnx, into the same folder. Uninstall both, then install the one you need:
pip uninstall -y fastrank fastrank-onnx"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status.

    0: done; 1: an error that the message explains; 2: wrong usage; 128 + n: signal n came (130 is Ctrl-C).
    """
    streams.repair()
    logging.basicConfig(format="fastrank: %(message)s", level=logging.WARNING)
    if not hasattr(fastrank, "_HOMES"):
        terminal.note(_NAMESAKE)
        return 1
    options = _parser().parse_args(arguments)
    streams.use_utf8()
    try:
        with streams.signals_raise():
            status: int = options.run(options)
            sys.stdout.flush()  # so that a closed pipe shows here and not at exit
    except KeyboardInterrupt:
        return 130
    except streams.SignalError as signal:
        return signal.status
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        streams.discard_output()
        return 0
    except (FastrankError, OSError, ValueError, TypeError, ModuleNotFoundError) as error:
        streams.flush()  # results come before the message
        terminal.note(messages.with_options(str(error)))
        return 1
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fastrank", description="Embeddings and reranking on ONNX Runtime.")
    parser.add_argument("--version", action="version", version=f"fastrank {fastrank.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in _COMMANDS:
        module.add_to(commands)
    return parser
