"""Which labels are found as which channel. The lists are those of genuine files."""

import pytest

from hms_dist.core.errors import UserError
from hms_dist.core.signal_format import CHANNELS
from hms_dist.imports.names import EKG, SCALP, electrode_of, find_channels, pair_of, parse_map

TUH = (
    "EEG FP1-LE EEG FP2-LE EEG F3-LE EEG F4-LE EEG C3-LE EEG C4-LE EEG A1-LE EEG A2-LE EEG P3-LE EEG P4-LE EEG O1-LE "
    "EEG O2-LE EEG F7-LE EEG F8-LE EEG T3-LE EEG T4-LE EEG T5-LE EEG T6-LE EEG FZ-LE EEG CZ-LE EEG PZ-LE EEG OZ-LE "
    "EEG PG1-LE EEG PG2-LE EEG EKG-LE EEG SP2-LE EEG SP1-LE EEG RLC-LE EEG LUC-LE EEG 30-LE EEG T1-LE EEG T2-LE"
)
SIENA = (
    "EEG Fp1,EEG F3,EEG C3,EEG P3,EEG O1,EEG F7,EEG T3,EEG T5,EEG Fc1,EEG Fc5,EEG Cp1,EEG Cp5,EEG F9,EEG Fz,EEG Cz,"
    "EEG Pz,EEG Fp2,EEG F4,EEG C4,EEG P4,EEG O2,EEG F8,EEG T4,EEG T6,EEG Fc2,EEG Fc6,EEG Cp2,EEG Cp6,EEG F10,EKG EKG,"
    "SPO2,HR,1,2,MK"
)
SEIZEIT = (
    "Fp1,Fp2,F3,F4,F7,F8,Fz,C3,C4,Cz,T3,T4,T5,T6,P3,P4,Pz,O1,O2,OorLiAchter,OorReAchter,OorLiTop,OorReTop,Sph1,Sph2,ECG"
)
TEN_TEN = "Fp1,F3,C3,P3,F7,T7,P7,O1,Fz,Cz,Pz,Fp2,F4,C4,P4,F8,T8,P8,O2,Oz,FC1,Status"
LISTS = {
    "tuh": ["EEG " + name for name in TUH.split("EEG ")[1:]],
    "siena": SIENA.split(","),
    "seizeit": SEIZEIT.split(","),
}


@pytest.mark.parametrize("labels", LISTS.values(), ids=LISTS)
def test_all_20_of_genuine_lists_are_found(labels) -> None:
    found = find_channels([label.strip() for label in labels], {})
    assert set(found.electrodes) == set(CHANNELS)
    assert found.pairs == ()
    for name, number in found.electrodes.items():
        assert name.upper() in labels[number].upper().replace("ECG", "EKG")


def test_names_of_the_10_10_system() -> None:
    labels = TEN_TEN.split(",")
    found = find_channels(labels, {})
    assert set(found.electrodes) == set(SCALP)
    assert [labels[found.electrodes[name]] for name in ("T3", "T4", "T5", "T6")] == ["T7", "T8", "P7", "P8"]


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("Fp1", "Fp1"), ("FP1.", "Fp1"), ("fz..", "Fz"), ("EEG Fp1-A2", "Fp1"), ("EEG_C3-Ref", "C3"), ("POL Cz", "Cz"),
        ("EEG  T7 - AVG", "T3"), ("P8-M1", "T6"), ("C4:M1", "C4"), ("O2_REF", "O2"), ("EEG F3-A1+A2", "F3"),
        ("ECG", EKG), ("EKG1-EKG2", EKG), ("EEG EKG-REF", EKG), ("ecg II", EKG),
        ("A1", None), ("FT9", None), ("Fp1-F7", None), ("C3-P3", None), ("Fpz", None), ("EOG", None), ("", None),
        ("F11", None), ("EEG", None), ("\u8111\u7535F3", None), ("T3-T7", None),
    ],
)  # fmt: skip
def test_electrodes(label, name) -> None:
    assert electrode_of(label) == name


@pytest.mark.parametrize(
    ("label", "pair"),
    [
        ("FP1-F7", ("Fp1", "F7")), ("F7-T7", ("F7", "T3")), ("EEG Fz - Cz", ("Fz", "Cz")), ("P8-O2", ("T6", "O2")),
        ("T7-FT9", None), ("Fp1-A1", None), ("Fp1", None), ("C3-REF", None), ("--", None),
    ],
)  # fmt: skip
def test_pairs(label, pair) -> None:
    assert pair_of(label) == pair


def test_two_labels_of_one_electrode_are_refused_and_map_chooses() -> None:
    labels = ["EEG F3-Ref", "EEG C3-Ref", "EEG F3-Ref", "T3", "T7"]
    with pytest.raises(UserError, match=r"one channel for F3.* by --map \"EEG F3-Ref#1=F3\""):
        find_channels(labels, {})
    with pytest.raises(UserError, match=r"one channel for T3, found 'T3' \(channel 4\) and 'T7' \(channel 5\)"):
        find_channels(labels, parse_map("EEG F3-Ref#2=F3"))
    found = find_channels(labels, parse_map("EEG F3-Ref#2=F3,T7=T3"))
    assert dict(found.electrodes) == {"F3": 2, "C3": 1, "T3": 4}


def test_a_second_ekg_is_left_out_and_noted() -> None:
    found = find_channels(["ECG1", "ECG2"], {})
    assert found.electrodes == {EKG: 0}
    assert "'ECG2' is left out" in found.notes[0]


def test_map_names_what_rules_do_not_find() -> None:
    found = find_channels(["A1", "X=5", "Brain"], parse_map(" a1=T3, x=5=Fp1-F7 ,,Brain=EKG"))
    assert found.electrodes == {"T3": 0, EKG: 2}
    assert found.pairs == ((("Fp1", "F7"), 1),)
    assert found.ears == {}


@pytest.mark.parametrize("text", ["A1", "A1=", "=T3", "A1=T99", "A1=T3,A1=T4", "A1=T3,A2=T3", "A1=F3-FT9"])
def test_a_wrong_map_is_refused(text) -> None:
    with pytest.raises(ValueError, match="map: "):
        parse_map(text)
