"""What tests share: the stand-in hub, tiny models, checkpoints, child processes, host libraries, texts."""

from pathlib import Path

TESTS = Path(__file__).parent.parent
ROOT = TESTS.parent
FIXTURES = TESTS / "fixtures"
