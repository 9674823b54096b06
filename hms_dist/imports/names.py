"""Rules that find Kaggle's 20 channels among the labels of a file.

Labels of one electrode (`EEG FP1-LE`, `Fp1`, `T7` for T3) are referential; labels of two (`FP1-F7`) are bipolar, and
electrodes are recovered from them (`bipolar`).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count

from hms_dist.core.errors import UserError
from hms_dist.core.signal_format import CHANNELS

SCALP = CHANNELS[:-1]
"""The 19 electrodes on the scalp."""
EKG = CHANNELS[-1]
EARS = {"A1": "left", "M1": "left", "A2": "right", "M2": "right"}
"""Electrodes at the ears, or behind them -> side."""
MOST_MISSING = 3
"""Most scalp electrodes that `missing="nan"` accepts as missing."""
_ALIASES = {"T7": "T3", "T8": "T4", "P7": "T5", "P8": "T6"}
"""Names of the 10-10 system -> those of the 10-20 system."""
_ELECTRODES = {name.upper(): name for name in SCALP} | _ALIASES
_HEART = re.compile(r"(EEG[\s_]+)?(ECG|EKG)")
_BEFORE = re.compile(r"(EEG|POL)[\s_]+")
_AFTER = re.compile(r"[-_:\s]\s*(REF|LE|AR|AVG|AV|A1|A2|M1|M2|A1A2|A1\+A2|M1M2|M1\+M2)$")
_PAIR = re.compile(r"([A-Z]+[0-9]*)\s*-\s*([A-Z]+[0-9]*)")
_SHOWN = 60
"""Most labels that a message lists."""

Pair = tuple[str, str]


@dataclass(frozen=True)
class Found:
    """Channels of a file by what they record; numbers are those of the file's channels."""

    electrodes: Mapping[str, int]
    """Name, as in CHANNELS -> channel."""
    pairs: tuple[tuple[Pair, int], ...]
    """(electrode, subtracted electrode) -> channel; a pair may occur twice."""
    ears: Mapping[str, int]
    """left, right -> channel."""
    notes: tuple[str, ...]
    """Choices that were made, for the report."""


def parse_map(text: str | None) -> dict[str, str | Pair]:
    """Parse `--map "LABEL=ELECTRODE,..."`: label in upper case -> name in CHANNELS, or pair.

    Raises ValueError for another form.
    """
    mapped: dict[str, str | Pair] = {}
    for part in (text or "").split(","):
        if not part.strip():
            continue
        label, _, wanted = (word.strip() for word in part.rpartition("="))
        target = electrode_of(wanted) or pair_of(wanted)
        if not label or target is None:
            raise ValueError(
                f"map: expected LABEL=ELECTRODE, the electrode one of {', '.join(CHANNELS)} or a pair such as "
                f"F7-T3, found '{part.strip()[:40]}'"
            )
        if label.upper() in mapped or target in mapped.values():
            raise ValueError(f"map: '{part.strip()[:40]}': each label and each electrode can be named once")
        mapped[label.upper()] = target
    return mapped


def electrode_of(label: str) -> str | None:
    """Return the channel, as in CHANNELS, that a label names; None if it names none of them."""
    name = _tidy(label)
    if _HEART.match(name):
        return EKG
    return _ELECTRODES.get(_bare(name))


def pair_of(label: str) -> Pair | None:
    """Return (electrode, subtracted electrode) of a bipolar label; None if it is not one of two scalp electrodes."""
    match = _PAIR.fullmatch(_BEFORE.sub("", _tidy(label), count=1))
    if match is None or match[1] not in _ELECTRODES or match[2] not in _ELECTRODES:
        return None
    return _named(match[1]), _named(match[2])


def find_channels(labels: Sequence[str], mapped: Mapping[str, str | Pair]) -> Found:
    """Find what each label records. An electrode that `mapped` names is taken from there alone.

    Raises UserError if two labels name the same scalp electrode.
    """
    given = _numbered(labels)
    electrodes: dict[str, int] = {}
    pairs: list[tuple[Pair, int]] = []
    ears: dict[str, int] = {}
    notes: list[str] = []
    chosen = {target for label, target in mapped.items() if label in given}
    for label, number in given.items():
        target = mapped.get(label)
        if isinstance(target, str):
            electrodes[target] = number
            notes.append(f"{target} from '{labels[number]}' by --map")
        elif target is not None:
            pairs.append((target, number))
            notes.append(f"{'-'.join(target)} from '{labels[number]}' by --map")
    for number, label in enumerate(labels):
        if number in electrodes.values() or number in [other for _, other in pairs]:
            continue
        name, pair = electrode_of(label), pair_of(label)
        if name is not None and name not in chosen:
            if name not in electrodes:
                electrodes[name] = number
            elif name == EKG:
                notes.append(f"EKG from '{labels[electrodes[EKG]]}'; '{label}' is left out")
            else:
                raise _twice(name, labels, electrodes[name], number)
        elif pair is not None and pair not in chosen:
            pairs.append((pair, number))
        elif (side := EARS.get(_bare(_tidy(label)))) is not None:
            ears.setdefault(side, number)
    return Found(electrodes, tuple(pairs), ears, tuple(notes))


def check_missing(missing: Sequence[str], labels: Sequence[str], *, allow: bool) -> None:
    """Raise UserError if scalp electrodes are missing: any, or with `allow` more than MOST_MISSING."""
    if not missing or (allow and len(missing) <= MOST_MISSING):
        return
    shown = ", ".join(f"'{label}'" for label in labels[:_SHOWN]) or "no signals"
    more = f" and {len(labels) - _SHOWN} more" if len(labels) > _SHOWN else ""
    advice = "" if len(missing) > MOST_MISSING else ", or --missing nan, which leaves them empty"
    raise UserError(
        f"expected the 19 electrodes of the 10-20 system, missing {', '.join(missing)}; found {shown}{more}; "
        f'name others by --map "LABEL=ELECTRODE,..."{advice}'
    )


def _numbered(labels: Sequence[str]) -> dict[str, int]:
    """Channels by upper-case label; of labels that occur twice, also by LABEL#1, LABEL#2 in their order."""
    upper = [_tidy(label) for label in labels]
    counts = {label: count(1) for label in upper}
    numbered: dict[str, int] = {}
    for number, label in enumerate(upper):
        numbered.setdefault(label, number)
        if upper.count(label) > 1:
            numbered[f"{label}#{next(counts[label])}"] = number
    return numbered


def _twice(name: str, labels: Sequence[str], one: int, other: int) -> UserError:
    first = labels[one] if _tidy(labels[one]) != _tidy(labels[other]) else f"{labels[one]}#1"
    return UserError(
        f"expected one channel for {name}, found '{labels[one]}' (channel {one + 1}) and '{labels[other]}' (channel "
        f'{other + 1}); choose one by --map "{first}={name}"'
    )


def _tidy(label: str) -> str:
    """Upper case, single blanks, without the dots that some files fill labels with."""
    return " ".join(label.upper().split()).rstrip(". ")


def _bare(name: str) -> str:
    """Remove `EEG` in front and the name of a reference behind."""
    bare = _AFTER.sub("", _BEFORE.sub("", name, count=1))
    return bare.rstrip(". ")


def _named(name: str) -> str:
    return _ELECTRODES[name]
