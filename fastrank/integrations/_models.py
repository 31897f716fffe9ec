"""What the integrations share: one loaded model per process, and devices as other libraries name them."""

from __future__ import annotations

from typing import Any

from fastrank.engine.options import Device
from fastrank.engine.shared import shared
from fastrank.late_interaction import LateInteractionTextEmbedding
from fastrank.models import registry
from fastrank.models.spec import LATE_INTERACTION
from fastrank.rerank.cross_encoder import TextCrossEncoder

__all__ = ["device_options", "shared"]


def reranker(model_name: str, *, late_interaction: bool | None = None, **options: Any) -> Any:
    """The one cross-encoder or late interaction model of this process with this name and options.

    Args:
        model_name: of the model.
        late_interaction: whether it is one; None: as the registry says, which for a name that is both is yes.
        **options: of its class.

    Raises:
        ModelNotFoundError: no such model; the message lists similar names.
        TypeError, ValueError: as the class's constructor.
    """
    if late_interaction is None:
        late_interaction = any(spec.name.lower() == model_name.lower() for spec in registry.entries(LATE_INTERACTION))
    kind: Any = LateInteractionTextEmbedding if late_interaction else TextCrossEncoder
    return shared(kind, model_name, **options)


def device_options(device: str | None) -> dict[str, Any]:
    """Constructor options for a device as PyTorch's libraries name it: "cpu", "cuda", "cuda:1"; None, "": any.

    Raises:
        ValueError: another device.
    """
    kind, _, number = (device or Device.AUTO.value).partition(":")
    if kind not in list(Device) or (number and not (kind == Device.CUDA and number.isdecimal())):
        raise ValueError(f"device must be None, 'cpu', 'cuda' or 'cuda:<number>', not {device!r}")
    return {"cuda": Device(kind), "device_id": int(number) if number else None}
