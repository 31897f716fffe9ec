"""Every error of this package, as one tree.

* FastrankError
    - ModelNotFoundError      (ValueError)         no model has this name; the message suggests similar names
    - RegistryError           (ValueError)         a registry entry is invalid; the message names entry and field
    - ModelNotCachedError     (FileNotFoundError)  the model is not cached, and downloads are off
    - DownloadError           (OSError)            every source of the model failed; the message lists them
        + IntegrityError                           size or SHA-256 of a file differs from the registry
    - ModelLoadError          (RuntimeError)       the files exist but cannot be used; the cause is chained
    - ProviderError           (ValueError)         a requested execution provider is not available
    - OutputError             (ArithmeticError)    the model returned NaN or infinity for a text
    - BulkError               (ValueError)         a row of a batch or file is no text; the message names the row
    - TextTooLongError        (ValueError)         a text has more tokens than the model takes, and may not be cut

Each is also the matching builtin, so `except ValueError` around FastEmbed code keeps working.
Wrong arguments raise plain `TypeError` and `ValueError` at the call.
"""

from __future__ import annotations


def how_to_install(name: str) -> str:
    """The command that installs what an extra needs, for error messages."""
    return f"pip install 'fastrank-onnx[{name}]' (in a checkout: pip install '.[{name}]')"


class FastrankError(Exception):
    """Base of all errors raised by fastrank itself."""


class ModelNotFoundError(FastrankError, ValueError):
    """No model of this task has this name. The message suggests similar names."""


class RegistryError(FastrankError, ValueError):
    """A registry entry is invalid. The message names the entry and the field."""


class ModelNotCachedError(FastrankError, FileNotFoundError):
    """The model is not cached, and downloads are off."""


class DownloadError(FastrankError, OSError):
    """Every source of the model failed. The message lists them with their errors."""


class IntegrityError(DownloadError):
    """The size or SHA-256 of a file differs from the registry."""


class ModelLoadError(FastrankError, RuntimeError):
    """Model files exist but cannot be used: damaged, unsupported, or not what the registry says."""


class ProviderError(FastrankError, ValueError):
    """A requested execution provider is not available in this onnxruntime."""


class OutputError(FastrankError, ArithmeticError):
    """The model returned NaN or infinity. The message names the text by its position."""


class BulkError(FastrankError, ValueError):
    """A row of a batch or file cannot be embedded. The message names file, column and row; it can be pickled.

    Attributes:
        row: its number in the batch or file, from 0.
        reason: what is wrong with it.
    """

    def __init__(self, message: str, row: int | None = None, reason: str = "") -> None:
        super().__init__(message)
        self.row, self.reason = row, reason


class TextTooLongError(FastrankError, ValueError):
    """A text has more tokens than the model takes, and `overflow="error"` forbids to cut it. The message names it."""
