"""Programs of the repository as modules: those in scripts/, and makers of fixtures."""

import functools
import importlib.util
import sys

from support import ROOT

sys.path.append(str(ROOT / "scripts"))  # what programs there share


@functools.cache
def script(name, folder=ROOT / "scripts"):
    spec = importlib.util.spec_from_file_location(f"scripts_{name}", folder / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
