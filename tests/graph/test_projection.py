"""Dense modules are written into graphs as `engine.modules` computes them."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from fastrank.engine import modules
from fastrank.graph import onnx_proto, projection
from fastrank.graph.builder import Graph
from fastrank.models import sentence_transformers

NAMES = sorted(set(sentence_transformers._ACTIVATIONS.values()))


def test_every_activation_that_is_read_is_written_and_computed():
    assert set(NAMES) == set(projection._ACTIVATIONS) == set(modules._ACTIVATIONS)


@pytest.mark.parametrize("name", NAMES)
def test_activations_are_the_same_in_a_graph_and_in_numpy(name):
    graph = Graph(Path(), {})
    x = graph.input("x", onnx_proto.FLOAT, ["rows", 7])
    graph.output("y", projection._ACTIVATIONS[name](graph, x), onnx_proto.FLOAT, ["rows", 7])
    session = onnxruntime.InferenceSession(graph.to_bytes(), providers=["CPUExecutionProvider"])
    rows = np.concatenate([np.linspace(-9, 9, 70), [-40, 40, 0, -3, 3, -1, 1]]).astype(np.float32).reshape(11, 7)
    np.testing.assert_allclose(
        session.run(None, {"x": rows})[0], modules._ACTIVATIONS[name](rows), rtol=0, atol=2e-6 * np.abs(rows).max()
    )
