"""Deliver a model in forked processes, and break each of them at its n-th change to the cache.

    python breaking.py CACHE SPEC

Each line of standard input, such as `kill 7`, makes a new process deliver the model. Its answer is a line of JSON.

    run 0    nothing goes wrong
    kill n   SIGKILL before the n-th change; writes are broken in their middle
    full n   the disk is full from the n-th change on; deleting still works
    lock n   the cache is read-only from the n-th change on
"""

import errno
import functools
import json
import os
import signal
import ssl
import sys

from fastrank import store
from fastrank.models.spec import FileSpec, HubSource, ModelSpec, Variant
from fastrank.store import hub

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
MAKING = {"open", "os.mkdir", "write", "fsync"}
CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.truncate", "os.mkdir"}
ERRORS = {"full": errno.ENOSPC, "lock": errno.EROFS}


class Fate:
    """What happens to this process, and what it received before."""

    def __init__(self, cache, how, which):
        self.cache, self.how, self.which = cache, how, which
        self.changes = self.received = 0

    def change(self, kind):
        """Called before every change to the cache, and in the middle of every write."""
        self.changes += self.how != "full" or kind in MAKING
        if self.how == "kill" and self.changes == self.which:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how in ERRORS and self.changes >= self.which and (self.how != "full" or kind in MAKING):
            raise OSError(ERRORS[self.how], os.strerror(ERRORS[self.how]))

    def audit(self, event, arguments):
        writes = event == "open" and arguments[2] & WRITING and str(arguments[0]).startswith(self.cache)
        if writes or event in CHANGES:
            self.change(event)

    def fsync(self, descriptor, real=os.fsync):
        self.change("fsync")
        real(descriptor)

    def write(self, stream, chunk, part, real=hub._write):
        self.received += len(chunk)
        real(stream, chunk[: len(chunk) // 2], part)
        try:
            self.change("write")
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(part)) from None
        real(stream, chunk[len(chunk) // 2 :], part)


def deliver(cache, spec, how, which):
    fate = Fate(cache, how, int(which))
    os.fsync, hub._write = fate.fsync, fate.write
    sys.addaudithook(fate.audit)
    try:
        store.locate(spec)
    except OSError as error:
        return {"errno": error.errno, "said": str(error)}
    return {"said": "delivered", "received": fate.received}


def main():
    cache, written = sys.argv[1:]
    names = {kind.__name__: kind for kind in (FileSpec, HubSource, ModelSpec, Variant)}
    spec = eval(written, names)  # noqa: S307 - the repr of a named tuple, from our own test
    ssl.create_default_context = functools.cache(ssl.create_default_context)  # reads all certificates: most of the time
    hub.Hub()  # imports all that is needed to download
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            answer(deliver(cache, spec, *line.split()))
            os._exit(0)
        if status := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
            answer({"said": "killed", "status": status})


def answer(words):
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
