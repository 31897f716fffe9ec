"""Every error of this package, as one tree.

* FastrankError
    - ModelNotFoundError      (ValueError)         the name is in no registry; says the nearest names
    - RegistryError           (ValueError)         a registry entry is malformed; names entry and field
    - ModelNotCachedError     (FileNotFoundError)  not on this machine, and downloading is off
    - DownloadError           (OSError)            every source of the model failed; says which and why
        + IntegrityError                           a file's size or SHA-256 differs from the registry's
    - ModelLoadError          (RuntimeError)       the files are here but cannot be used; the cause is chained
    - ProviderError           (ValueError)         an execution provider was asked for and is not there
    - OutputError             (ArithmeticError)    the model returned NaN or infinity for a text

Each is also the builtin that fits, so `except ValueError` around FastEmbed code keeps working.
Wrong arguments raise plain `TypeError` and `ValueError` at the call.
"""

from __future__ import annotations


class FastrankError(Exception):
    """Base of all errors raised by fastrank itself."""


class ModelNotFoundError(FastrankError, ValueError):
    """No registry entry has this name for this task."""


class RegistryError(FastrankError, ValueError):
    """A registry entry is malformed. The message names the entry and the field."""


class ModelNotCachedError(FastrankError, FileNotFoundError):
    """The model is not on this machine and downloading is switched off."""


class DownloadError(FastrankError, OSError):
    """The model could not be fetched from any of its sources."""


class IntegrityError(DownloadError):
    """A file's size or SHA-256 differs from what the registry states."""


class ModelLoadError(FastrankError, RuntimeError):
    """Model files are present but cannot be used: damaged, unsupported, or not what the registry says."""


class ProviderError(FastrankError, ValueError):
    """An execution provider was asked for and this onnxruntime does not have it."""


class OutputError(FastrankError, ArithmeticError):
    """The model returned NaN or infinity. The message names the text by its position."""
