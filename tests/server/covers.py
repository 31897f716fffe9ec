"""Whether an answer has all that a client needs of a recorded one."""

import base64
import math

import numpy as np

FRESH = {"id", "created", "total_duration", "load_duration"}  # differ from call to call


def covers(ours, wanted, *, values=True):
    """Raise where `ours` lacks something of `wanted`. `values`: numbers and texts must be equal too."""
    _covers(ours, wanted, "answer", values)
    return True


def _covers(ours, wanted, where, values):
    if isinstance(wanted, dict):
        assert isinstance(ours, dict), where
        for key, value in wanted.items():
            assert key in ours, f"{where}.{key} is missing"
            _covers(ours[key], value, f"{where}.{key}", values and key not in FRESH)
    elif isinstance(wanted, list):
        assert isinstance(ours, list), where
        assert not values or len(ours) == len(wanted), f"{where}: {len(ours)} items, not {len(wanted)}"
        for position, (mine, other) in enumerate(zip(ours, wanted, strict=False)):
            _covers(mine, other, f"{where}[{position}]", values)
    elif isinstance(wanted, (int, float)) and not isinstance(wanted, bool):
        assert isinstance(ours, (int, float)), where
        assert math.isfinite(ours), where
        assert not values or math.isclose(ours, wanted, abs_tol=2e-6), f"{where}: {ours} is not {wanted}"
    else:
        assert type(ours) is type(wanted), where
        assert not values or ours == wanted or _same_bytes(ours, wanted), f"{where}: {ours!r} is not {wanted!r}"


def _same_bytes(ours, wanted):
    if not isinstance(wanted, str):
        return False
    mine, other = (base64.b64decode(text, validate=True) for text in (ours, wanted))
    if len(mine) != len(other) or len(mine) % 4:
        return False
    return np.allclose(np.frombuffer(mine, "<f4"), np.frombuffer(other, "<f4"), atol=1e-6)
