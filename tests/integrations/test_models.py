"""What the integrations share: one model a process, and devices."""

import threading

import pytest

from fastrank import Device, TextEmbedding
from fastrank.errors import ModelNotFoundError
from fastrank.integrations._models import device_options, shared

MINI = "sentence-transformers/all-MiniLM-L6-v2"


def test_one_model_for_all_who_ask_for_the_same():
    asked = []
    threads = [threading.Thread(target=lambda: asked.append(shared(TextEmbedding, MINI, threads=1))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(asked) == 8
    assert len(set(map(id, asked))) == 1
    assert shared(TextEmbedding, MINI, threads=2) is not asked[0]
    assert shared(TextEmbedding, "BAAI/bge-small-en-v1.5", threads=1) is not asked[0]


def test_what_cannot_be_made_is_not_kept():
    for _ in range(2):
        with pytest.raises(ModelNotFoundError, match="acme/none"):
            shared(TextEmbedding, "acme/none")


@pytest.mark.parametrize(
    ("device", "kind", "number"),
    [
        (None, Device.AUTO, None),
        ("", Device.AUTO, None),
        ("auto", Device.AUTO, None),
        ("cpu", Device.CPU, None),
        ("cuda", Device.CUDA, None),
        ("cuda:1", Device.CUDA, 1),
    ],
)
def test_devices(device, kind, number):
    assert device_options(device) == {"cuda": kind, "device_id": number}


@pytest.mark.parametrize("device", ["mps", "cpu:0", "cuda:x", "cuda:-1", "gpu"])
def test_other_devices(device):
    with pytest.raises(ValueError, match=f"not '{device}'"):
        device_options(device)
