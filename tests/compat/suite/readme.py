"""The Python blocks of FastEmbed's README, as its distribution has them, in their order, without a warning."""

import importlib.metadata
import re
import warnings

import pytest

NOT_RUN = ("ImageEmbedding", "LateInteractionMultimodalEmbedding", "CUDAExecutionProvider", "QdrantClient")
README = importlib.metadata.distribution("fastembed").read_text("METADATA")
BLOCKS = [
    block
    for block in re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    if not any(name in block for name in NOT_RUN)
]
names = {}


@pytest.mark.parametrize("block", range(len(BLOCKS)))
def test_a_block_runs(block, record):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(BLOCKS[block], names)  # noqa: S102
    record("results", [list(names[name]) for name in ("embeddings", "scores") if name in names])


def test_there_are_blocks():
    assert len(BLOCKS) == 7
