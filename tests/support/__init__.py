"""What tests share: the stand-in hub, tiny models, checkpoints, child processes, host libraries, texts."""

from pathlib import Path

import fastrank

TESTS = Path(__file__).parent.parent
ROOT = TESTS.parent
FIXTURES = TESTS / "fixtures"
PACKAGE = Path(fastrank.__file__).parent
_REGISTRIES = (PACKAGE / "models" / "model_registry.json", PACKAGE.parent / "model_registry.json")
REGISTRY = next(path for path in _REGISTRIES if path.is_file())  # in a wheel, or in a checkout
