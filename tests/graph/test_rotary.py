"""Rotary frequencies, in float32 as torch computes them."""

import numpy as np
import pytest

from fastrank.graph import rotary


def exactly(width, theta):
    return float(theta) ** -(np.arange(0, width, 2) / width)


def test_frequencies_are_those_of_torch():
    """Printed by torch 2.13: 1.0 / theta ** (torch.arange(0, 8, 2) / 8)."""
    assert rotary.frequencies(8, 160_000.0) == [1.0, 0.05000000074505806, 0.0024999999441206455, 0.0001250000059371814]


def test_ntk_frequencies_are_those_of_torch():
    expected = [0.7952707409858704, 0.03162277862429619, 0.0012574335560202599, 4.999999509891495e-05]
    assert rotary.ntk_frequencies(8, 160_000.0, 2.5) == expected


@pytest.mark.parametrize("theta", [1_000.0, 10_000.0, 160_000.0, 1_000_000.0])
@pytest.mark.parametrize("width", [2, 64, 96, 128, 256])
def test_frequencies_fall_from_1_to_nearly_1_by_theta(width, theta):
    found = np.array(rotary.frequencies(width, theta))
    assert np.array_equal(found, found.astype(np.float32))
    np.testing.assert_allclose(found, exactly(width, theta), rtol=1e-6)


@pytest.mark.parametrize("factor", [1.0, 2.0, 8.0])
@pytest.mark.parametrize("width", [8, 64, 96])
def test_ntk_divides_the_last_frequency_by_the_factor(width, factor):
    found, plain = rotary.ntk_frequencies(width, 20_000.0, factor), rotary.frequencies(width, 20_000.0)
    assert found[-1] == pytest.approx(plain[-1] / factor, rel=1e-6)
    assert found[0] == pytest.approx(factor ** (-2 / width), rel=1e-6)
