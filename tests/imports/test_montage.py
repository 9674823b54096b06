"""From channels of a file to the 20 of the layout: referential, bipolar, references, missing ones."""

import numpy as np
import pytest

from hms_dist.core.errors import UserError
from hms_dist.core.signal_format import CHANNELS
from hms_dist.imports.montage import montage_of
from hms_dist.imports.names import SCALP
from hms_dist.signals.montage import CHAINS, TRACE_PAIRS, differences

CHB = [
    *("FP1-F7", "F7-T7", "T7-P7", "P7-O1", "FP1-F3", "F3-C3", "C3-P3", "P3-O1"),
    *("FP2-F4", "F4-C4", "C4-P4", "P4-O2", "FP2-F8", "F8-T8", "T8-P8", "P8-O2", "FZ-CZ", "CZ-PZ"),
    *("P7-T7", "T7-FT9", "FT9-FT10", "FT10-T8", "T8-P8"),
]
"""Labels of CHB-MIT: one is there twice, one the other way round."""
PAIRS = tuple(pair for pair in TRACE_PAIRS if len(pair) == 2)


def bipolar(scalp, labels):
    """Signals of bipolar labels from electrodes [19, samples]."""
    named = dict(zip((name.upper() for name in SCALP), scalp, strict=True))
    named |= {"T7": named["T3"], "T8": named["T4"], "P7": named["T5"], "P8": named["T6"]}
    pairs = [label.split("-") for label in labels]
    return np.stack([named.get(one, 0 * scalp[0]) - named.get(other, 0 * scalp[0]) for one, other in pairs])


def montage(labels, *, reference="as_recorded", missing="fail", mapped=None):
    return montage_of(labels, mapped or {}, reference=reference, missing=missing)


def as_read(found, signals):
    return signals[list(found.channels)]


def test_every_difference_of_a_bipolar_file_comes_back(rng) -> None:
    scalp = rng.normal(0, 50, (19, 500))
    found = montage(CHB)
    signals = as_read(found, bipolar(scalp, CHB))
    electrodes = found.electrodes(signals)
    assert found.is_bipolar
    assert found.missing == ("EKG",)
    assert np.isnan(electrodes[-1]).all()
    true = np.vstack([scalp, np.zeros(500)])
    np.testing.assert_allclose(differences(electrodes.T, PAIRS), differences(true.T, PAIRS), atol=1e-9)
    assert np.abs(electrodes[[CHANNELS.index(name) for name in ("Fp1", "Fp2", "Fz")]]).max() == 0
    # Four loops: the two chains of each side, and the two pairs that are recorded twice.
    assert found.closure_uv(signals).shape == (4, 500)
    assert np.abs(found.closure_uv(signals)).max() < 1e-9


def test_rounding_of_16_bits_is_shared_by_the_loop_and_measured(rng) -> None:
    scalp = rng.normal(0, 50, (19, 2000))
    signals = np.round(bipolar(scalp, CHB[:18]) / 0.2) * 0.2
    found = montage(CHB[:18])
    electrodes = found.electrodes(signals)
    true = np.vstack([scalp, np.zeros(2000)])
    assert np.abs(differences(electrodes.T, PAIRS) - differences(true.T, PAIRS)).max() < 0.2
    rms = np.sqrt((found.closure_uv(signals) ** 2).mean(axis=1))
    assert (rms > 0.05).all()
    assert (rms < 0.3).all()


def test_channels_that_are_exchanged_across_chains_do_not_close(rng) -> None:
    scalp = rng.normal(0, 50, (19, 500))
    signals = bipolar(scalp, CHB[:18])
    signals[[1, 5]] = signals[[5, 1]]
    found = montage(CHB[:18])
    assert np.sqrt((found.closure_uv(signals) ** 2).mean(axis=1)).max() > 50


def test_a_missing_link_leaves_electrodes_empty_only_where_no_other_chain_reaches(rng) -> None:
    scalp = rng.normal(0, 50, (19, 100))
    labels = [label for label in CHB[:18] if label not in ("CZ-PZ", "F3-C3")]
    with pytest.raises(UserError, match="missing Pz; found 'FP1-F7'"):
        montage(labels)
    found = montage(labels, missing="nan")
    assert found.missing == ("Pz", "EKG")
    electrodes = found.electrodes(as_read(found, bipolar(scalp, labels)))
    true = np.vstack([scalp, np.zeros(100)])
    pairs = [pair for pair in PAIRS if "Pz" not in pair]
    np.testing.assert_allclose(differences(electrodes.T, pairs), differences(true.T, pairs), atol=1e-9)


def test_referential_channels_are_taken_as_they_are(rng) -> None:
    labels = [*reversed(CHANNELS), "Oz"]
    signals = rng.normal(0, 50, (21, 100))
    found = montage(labels)
    assert found.missing == ()
    assert len(found.channels) == 20
    np.testing.assert_array_equal(found.electrodes(as_read(found, signals)), signals[:20][::-1])


def test_references(rng) -> None:
    labels = [*CHANNELS, "M1", "A2"]
    signals = rng.normal(0, 50, (22, 100))
    average = montage(labels, reference="average")
    found = average.electrodes(as_read(average, signals))
    np.testing.assert_allclose(found[:19], signals[:19] - signals[:19].mean(0), atol=1e-12)
    np.testing.assert_array_equal(found[19], signals[19])
    linked = montage(labels, reference="linked_ears")
    expected = signals[:19] - (signals[20] + signals[21]) / 2
    np.testing.assert_allclose(linked.electrodes(as_read(linked, signals))[:19], expected, atol=1e-12)
    for found in (average, linked):  # bipolar pictures do not depend on the reference
        electrodes = found.electrodes(as_read(found, signals))
        np.testing.assert_allclose(differences(electrodes.T, PAIRS), differences(signals[:20].T, PAIRS), atol=1e-9)


def test_missing_electrodes_are_left_out_of_the_average(rng) -> None:
    labels = [name for name in CHANNELS if name not in ("Fz", "EKG")]
    signals = rng.normal(0, 50, (18, 100))
    found = montage(labels, reference="average", missing="nan")
    electrodes = found.electrodes(as_read(found, signals))
    assert found.missing == ("Fz", "EKG")
    assert np.isnan(electrodes[CHANNELS.index("Fz")]).all()
    np.testing.assert_allclose(np.nansum(electrodes[:19], axis=0), 0, atol=1e-9)


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (CHANNELS, {"reference": "linked_ears"}, "needs channels A1 and A2"),
        (CHB, {"reference": "average"}, "this file is bipolar"),
        (CHANNELS[4:], {"missing": "nan"}, "missing Fp1, F3, C3, P3; found"),
        (CHANNELS[1:], {}, "missing Fp1; found .*, or --missing nan, which leaves them empty"),
        (["EEG Fpz-Cz", "EEG Pz-Oz"], {}, "missing Fp1, F3.*found 'EEG Fpz-Cz', 'EEG Pz-Oz'; name others by --map"),
    ],
)
def test_what_does_not_suffice_is_refused(labels, options, message) -> None:
    with pytest.raises(UserError, match=message):
        montage(list(labels), **options)


def test_every_chain_of_the_spectrogram_is_in_a_bipolar_file() -> None:
    assert {pair for chain in CHAINS.values() for pair in chain} <= {*PAIRS}
