"""Python programs in processes of their own."""

import subprocess
import sys

from support.waiting import patience


def python(code, spec=None, **options):
    """Start a process that runs `code`; `sys`, `store` and `spec` are there."""
    program = f"import sys\nfrom fastrank import store\nfrom fastrank.models.spec import *\n{spec=}\n{code}"
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen([sys.executable, "-c", program], text=True, **pipes, **options)


def ends_well(process, given=None):
    """What a process printed, once it ended without an error; `given` is its standard input.

    A process that does not end in time is killed, and the error says what it had printed.
    """
    try:
        out, err = process.communicate(given, timeout=patience(60))
    except subprocess.TimeoutExpired as error:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"{error}\n{out}\n{err}") from None
    assert process.returncode == 0, err
    return out.strip()


def run_python(*arguments, check=False, **options):
    """Run Python with these arguments to its end and return a `subprocess.CompletedProcess` with text.

    With `check`, an exit status that is not 0 is an error that shows what the process said.
    """
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=patience(120), check=False, **options)
    assert not check or done.returncode == 0, done.stderr
    return done
