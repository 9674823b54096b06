"""Electrodes, fields and the spatial mixing of the simulator."""

import numpy as np
import pytest

from hms_dist.recordings.simulator import head

LEFT = ["Fp1", "F3", "C3", "P3", "F7", "T3", "T5", "O1"]
RIGHT = ["Fp2", "F4", "C4", "P4", "F8", "T4", "T6", "O2"]


def rows(names):
    return [head.SCALP.index(name) for name in names]


def test_electrodes_are_on_a_sphere_with_mirrored_sides():
    np.testing.assert_allclose(np.linalg.norm(head.POSITIONS, axis=1), 1)
    np.testing.assert_allclose(head.POSITIONS[rows(LEFT)] * [-1, 1, 1], head.POSITIONS[rows(RIGHT)], atol=1e-12)
    assert (head.POSITIONS[rows(LEFT), 0] < 0).all()


@pytest.mark.parametrize(("name", "point"), [("T3", (-1.0, 0.0)), ("Fp2", (0.31, 0.95)), ("Cz", (0.0, 0.0))])
def test_field_is_one_at_its_centre_and_falls_with_the_angle(name, point):
    gains = head.field(*point, 30)
    assert gains[head.SCALP.index(name)] == pytest.approx(1)
    angles = np.arccos(np.clip(head.POSITIONS @ head.POSITIONS[head.SCALP.index(name)], -1, 1))
    assert (np.diff(gains[np.argsort(angles)]) <= 1e-9).all()


def test_bipolar_takes_neighbours_along_the_four_chains(rng):
    signals = rng.normal(size=(19, 5))
    differences = head.bipolar(signals)
    assert differences.shape == (4, 4, 5)
    for region, chain in enumerate(["Fp1 F7 T3 T5 O1", "Fp2 F8 T4 T6 O2", "Fp1 F3 C3 P3 O1", "Fp2 F4 C4 P4 O2"]):
        first, *_, last = (head.SCALP.index(name) for name in chain.split())
        np.testing.assert_allclose(differences[region].sum(axis=0), signals[first] - signals[last])
        second = head.SCALP.index(chain.split()[1])
        np.testing.assert_allclose(differences[region, 0], signals[first] - signals[second])


def test_one_side_damps_only_the_other():
    gains = head.on_one_side(np.ones(19), -1, 0.25)
    assert (gains[rows(LEFT)] == 1).all()
    assert (gains[rows(RIGHT)] == 0.25).all()
    assert (gains[rows(["Fz", "Cz", "Pz"])] == 1).all()


def test_mixing_makes_neighbours_alike_and_differences_of_variance_one(rng):
    noise = head.MIXING @ rng.standard_normal((19, 50_000))
    assert head.bipolar(noise).var(axis=-1).mean() == pytest.approx(1, rel=0.03)
    correlation = np.corrcoef(noise)
    near = correlation[head.SCALP.index("F3"), head.SCALP.index("C3")]
    far = correlation[head.SCALP.index("F3"), head.SCALP.index("O2")]
    assert near > 0.5
    assert near > far + 0.2
