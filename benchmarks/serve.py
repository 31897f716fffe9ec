"""`fastrank serve` under load: requests a second, and how long a query waits beside a client with 10,000 texts.

    pip install 'fastrank-onnx[server]'
    python benchmarks/serve.py                                    # fastrank, and fastrank in first-in-first-out order
    python benchmarks/serve.py --infinity path/to/bin/infinity_emb --json result.json

All servers have the same model (all-MiniLM-L6-v2 in fp32), are warm, and are measured in turn, round by round, on one
machine that the clients share. First-in-first-out is the order of text-embeddings-inference: it is this server with
another order of its queue, so that nothing but the order differs.

Reranking is by cosine, so that the same model does it; infinity-emb needs a classifier for that and is left out there.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from common import machine

from fastrank import store
from fastrank.models import registry
from fastrank.models.spec import TEXT_EMBEDDING
from fastrank.store.lookup import Lookup

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
PORTS = {"fastrank": 18501, "fastrank, first in first out": 18502, "infinity-emb": 18503}
WORDS = (
    "a",
    "bank",
    "river",
    "money",
    "stone",
    "chess",
    "machine",
    "plays",
    "games",
    "bees",
    "valley",
    "flour",
    "body",
)
BULK, BULK_WORDS, REQUEST = 10_000, 16, 2_000  # texts of one client, their words, and how many it sends at once
QUERY_WORDS, DOCUMENTS, DOCUMENT_WORDS = 8, 20, 40
CLIENTS = 4  # that always have a query waiting, beside the bulk
CONNECTIONS = (1, 16, 64)


class Load(NamedTuple):
    """What one arm did under a load."""

    requests: int
    seconds: float
    waits: list[float]  # seconds of each request
    errors: int


def serve(order: str, port: int) -> None:
    """Run a server in this process; in `fifo` order as text-embeddings-inference has it."""
    from fastrank.cli import main

    if order == "fifo":
        first_in_first_out()
    arguments = [MODEL, "--rerank-with", "dense", "--max-inputs", str(BULK), "--max-waiting-tokens", "10000000"]
    sys.exit(main(["serve", *arguments, "--port", str(port), "--timeout", "600"]))


def first_in_first_out() -> None:
    """Let the queue take jobs in the order in which they came, each to its end; nothing else changes."""
    from fastrank.engine import scheduler

    arrivals = itertools.count(1)
    made = scheduler._SubmittedJob.__init__  # noqa: SLF001 - the point of comparison
    taken = scheduler._Job.take  # noqa: SLF001

    def init(self: Any, *arguments: Any) -> None:
        made(self, *arguments)
        self.arrival = float(next(arrivals))
        self.start = self.arrival

    def take(self: Any) -> int:
        index = taken(self)
        self.start = self.arrival
        return index

    scheduler._SubmittedJob.__init__ = init  # type: ignore[method-assign,assignment]  # noqa: SLF001
    scheduler._Job.take = take  # type: ignore[method-assign]  # noqa: SLF001
    unmoved = property(lambda _self: 0.0, lambda _self, _value: None)
    scheduler.Scheduler._virtual_time = unmoved  # type: ignore[assignment]  # noqa: SLF001


def started(arms: Sequence[str], infinity: str | None) -> dict[str, subprocess.Popen[bytes]]:
    """The servers, once they answer."""
    spec = registry.find(MODEL, TEXT_EMBEDDING)
    folder = store.locate(spec, Lookup(variant="safetensors")).folder
    processes = {}
    for arm in arms:
        if arm == "infinity-emb":
            command = [str(infinity), "v2", "--model-id", str(folder), "--engine", "torch", "--host", "127.0.0.1"]
            command += ["--device", "cpu", "--port", str(PORTS[arm]), "--served-model-name", MODEL]
            command += ["--no-bettertransformer"]
        else:
            command = [sys.executable, __file__, "--serve", "fifo" if "first" in arm else "fair", str(PORTS[arm])]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
        processes[arm] = subprocess.Popen(  # noqa: S603 - what this file says
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
        )
    for arm in arms:
        deadline = time.monotonic() + 180
        while not answers(PORTS[arm]):
            if processes[arm].poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{arm} does not start")
            time.sleep(0.2)
    return processes


def answers(port: int) -> bool:
    """Whether a server is ready."""
    try:
        return ask(port, "/embeddings", {"model": MODEL, "input": ["warm"]})[0] == 200
    except OSError:
        return False


def ask(port: int, path: str, body: Any) -> tuple[int, bytes]:
    """Status and body of one request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    try:
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def under_load(port: int, path: str, body: Callable[[], Any], clients: int, until: Callable[[], bool]) -> Load:
    """So many clients, each with a request waiting at all times."""
    waits: list[float] = []
    errors = 0
    lock = threading.Lock()

    def client() -> None:
        nonlocal errors
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        while not until():
            content = json.dumps(body())
            begun = time.perf_counter()
            connection.request("POST", path, content, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            with lock:
                waits.append(time.perf_counter() - begun)
                errors += answer.status != 200
        connection.close()

    threads = [threading.Thread(target=client) for _ in range(clients)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Load(len(waits), time.perf_counter() - begun, waits, errors)


def over(seconds: float) -> Callable[[], bool]:
    """Whether so many seconds have passed since now."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def beside_bulk(port: int) -> tuple[Load, float]:
    """Queries beside one client with 10,000 texts, and how long that client takes."""
    texts = [words(BULK_WORDS) for _ in range(BULK)]
    took = 0.0
    done = threading.Event()

    def bulk() -> None:
        nonlocal took
        begun = time.perf_counter()
        parts = [texts[start : start + REQUEST] for start in range(0, BULK, REQUEST)]
        senders = [
            threading.Thread(target=ask, args=(port, "/embeddings", {"model": MODEL, "input": part})) for part in parts
        ]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
        took = time.perf_counter() - begun
        done.set()

    sender = threading.Thread(target=bulk)
    sender.start()
    time.sleep(1)  # it is in the queue
    load = under_load(port, "/embeddings", query, CLIENTS, done.is_set)
    sender.join()
    return load, took


def query() -> dict[str, Any]:
    """A request for the vector of 10 tokens."""
    return {"model": MODEL, "input": [words(QUERY_WORDS)]}


def ranking() -> dict[str, Any]:
    """A request to rank 20 documents."""
    return {"model": MODEL, "query": words(QUERY_WORDS), "documents": [words(DOCUMENT_WORDS) for _ in range(DOCUMENTS)]}


def words(count: int) -> str:
    """So many words."""
    return " ".join(random.choices(WORDS, k=count))  # noqa: S311 - texts, no secrets


def memory(process: subprocess.Popen[bytes]) -> float:
    """MB of memory of a process now."""
    pages = int(Path(f"/proc/{process.pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def milliseconds(waits: Sequence[float]) -> dict[str, float]:
    """Percentiles."""
    ordered = sorted(waits)
    return {
        "p50": round(1000 * statistics.median(ordered), 1),
        "p99": round(1000 * ordered[int(0.99 * (len(ordered) - 1))], 1),
        "longest": round(1000 * ordered[-1], 1),
    }


def measured(arms: Sequence[str], processes: dict[str, Any], rounds: int, seconds: float) -> dict[str, Any]:
    """All loads on all arms, in turn."""
    result: dict[str, Any] = {arm: {"bulk": [], "memory": [round(memory(processes[arm]))]} for arm in arms}
    for number, arm in itertools.product(range(rounds), arms):
        port, of_arm = PORTS[arm], result[arm]
        for path, body in (("/embeddings", query), ("/rerank", ranking)):
            if path == "/rerank" and arm == "infinity-emb":
                continue
            for clients in CONNECTIONS:
                load = under_load(port, path, body, clients, over(seconds))
                figures = {"per_second": round(load.requests / load.seconds, 1), "errors": load.errors}
                of_arm.setdefault(f"{path} {clients}", []).append({**figures, **milliseconds(load.waits)})
        load, took = beside_bulk(port)
        figures = {"queries": load.requests, "errors": load.errors, "bulk_seconds": round(took, 1)}
        of_arm["bulk"].append({**figures, **milliseconds(load.waits)})
        of_arm["memory"].append(round(memory(processes[arm])))
        print(f"round {number + 1}, {arm}: {json.dumps(of_arm['bulk'][-1])}", file=sys.stderr)
    return result


def show(result: dict[str, Any]) -> None:
    """The median of rounds, as Markdown tables."""
    print("| server | beside 10,000 texts: p50 | p99 | longest | the texts take | memory |")
    print("|---|---|---|---|---|---|")
    for arm, figures in result.items():
        middle = {key: statistics.median(each[key] for each in figures["bulk"]) for key in figures["bulk"][0]}
        print(
            f"| {arm} | {middle['p50']:.0f} ms | {middle['p99']:.0f} ms | {middle['longest']:.0f} ms "
            f"| {middle['bulk_seconds']:.0f} s | {' → '.join(map(str, figures['memory']))} MB |"
        )
    print("\n| requests a second | " + " | ".join(f"{n} connections" for n in CONNECTIONS) + " |")
    print("|---|" + "---|" * len(CONNECTIONS))
    for arm, figures in result.items():
        for path in ("/embeddings", "/rerank"):
            cells = [figures.get(f"{path} {clients}") for clients in CONNECTIONS]
            if all(cells):
                rates = [statistics.median(each["per_second"] for each in cell or []) for cell in cells]
                print(f"| {arm}, {path[1:]} | " + " | ".join(f"{rate:.0f}" for rate in rates) + " |")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--infinity", metavar="FILE", help="the command `infinity_emb` of an environment that has it")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each number of connections")
    parser.add_argument("--json", metavar="FILE", help="write all figures here")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve[0], int(options.serve[1]))
    arms = [arm for arm in PORTS if arm != "infinity-emb" or options.infinity]
    processes = started(arms, options.infinity)
    try:
        result = measured(arms, processes, options.rounds, options.seconds)
    finally:
        for process in processes.values():
            process.send_signal(signal.SIGTERM)
            process.wait(60)
    show(result)
    if options.json:
        about = {"machine": machine.describe(), "result": result}
        Path(options.json).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
