"""Plan of the simulated clips: names, calls and annotations. A pure function of its options, drawn before any sound."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from hms_dist.datasets import Dataset
from hms_dist.recordings.audio_simulator.species import Species, all_species
from hms_dist.recordings.simulator.cohort import identifier

TEST_SHARE = 1992 / 4727
"""Clips of the test set a clip for training."""
TP_SHARE, FP_SHARE, BOTH_SHARE = 1132 / 4727, 3958 / 4727, 363 / 4727
"""Shares of the training clips with true positives, with false positives, and with both."""
FP_A_TP = 7781 / 1216
"""False positives a true positive."""
TWO_TPS = 67 / 1132
"""Share of the clips with true positives that have two."""
MOST_SPECIES = 8
FURTHER_SHARE = 2 / 7
"""Of 7 further species, the share that calls in a clip: about 3 species per clip."""
COMMON, COMMON_SHARE = 3, 0.9
"""The species that nearly every clip has, and its share of them."""
FURTHER_CALLS = 1.5
"""Mean number of calls of a species in a clip after the first."""
DECOY_SHARE = 0.5
"""Share of the false positives with a decoy in the box; the others have nothing there but the background."""
WEAKEST_DB, LOUDEST_DB = 0.0, 18.0
"""Level of a call over the background in its band."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call in a clip, or a decoy of a species that is absent from it."""

    species: Species
    start_s: float
    level_db: float
    is_decoy: bool = False


@dataclass(frozen=True, kw_only=True)
class Box:
    """An annotation."""

    species: Species
    start_s: float
    is_there: bool
    """True positive or false positive."""


@dataclass(frozen=True, kw_only=True)
class ClipPlan:
    """One clip."""

    index: int
    """Number of the clip among all."""
    name: str
    """recording_id."""
    split: Literal["train", "test"]
    calls: tuple[Call, ...]
    boxes: tuple[Box, ...]

    @property
    def present(self) -> set[int]:
        """Classes that call in it."""
        return {call.species.number for call in self.calls if not call.is_decoy}


def plan_clips(dataset: Dataset, num_train: int, num_test: int, clip_s: float, seed: int) -> list[ClipPlan]:
    """Plan all clips, those for training first. Species are dealt to the annotations evenly. Test clips have as many
    decoys, and no annotations."""
    species = all_species(dataset)
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(20,)))
    num_true, num_false = _annotations(num_train, rng)
    true_species = _dealt(int(num_true.sum()), len(species), rng)
    false_species = _dealt(int(num_false.sum()), len(species), rng)
    clips = []
    for index in range(num_train + num_test):
        is_train = index < num_train
        own = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(21, index)))
        if is_train:
            there, absent = true_species[: num_true[index]], false_species[: num_false[index]]
            true_species, false_species = true_species[len(there) :], false_species[len(absent) :]
        else:
            drawn = own.integers(0, len(species), own.poisson(num_false.mean()))
            there, absent = [], [int(number) for number in drawn if number != COMMON]
        calls, boxes = _clip(species, there, absent, clip_s, own)
        boxes = boxes if is_train else ()
        clips.append(
            ClipPlan(
                index=index, name=f"{identifier('clip', seed, index):09x}", split="train" if is_train else "test",
                calls=calls, boxes=boxes,
            )
        )  # fmt: skip
    return clips


def _annotations(num_clips: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Number of true and of false positives of each clip: at least one of one kind, and FP_A_TP in the whole."""
    order = rng.permutation(num_clips)
    num_with_true = max(round(TP_SHARE * num_clips), 1)
    num_both = min(round(BOTH_SHARE * num_clips), num_with_true)
    num_true, num_false = np.zeros(num_clips, np.int64), np.zeros(num_clips, np.int64)
    num_true[order[:num_with_true]] = 1
    num_true[order[: round(TWO_TPS * num_with_true)]] = 2
    with_false = np.concatenate([order[:num_both], order[num_with_true:]])
    if len(with_false):
        num_false[with_false] = 1
        further = max(round(FP_A_TP * num_true.sum()) - len(with_false), 0)
        np.add.at(num_false, rng.choice(with_false, further), 1)
    return num_true, num_false


def _dealt(count: int, num_species: int, rng: np.random.Generator) -> list[int]:
    """Species of `count` annotations, in random order, each as often as any other."""
    rounds = [rng.permutation(num_species) for _ in range(-(-count // num_species))]
    return [int(number) for number in np.concatenate([np.empty(0, np.int64), *rounds])[:count]]


def _clip(
    species: tuple[Species, ...], there: list[int], absent: list[int], clip_s: float, rng: np.random.Generator
) -> tuple[tuple[Call, ...], tuple[Box, ...]]:
    """Draw calls and annotations of a clip in which `there` call and `absent` do not."""
    there = list(dict.fromkeys(there))
    absent = [number for number in absent if number not in there]
    allowed = [one.number for one in species if one.number not in absent]
    wanted = min(1 + int(rng.binomial(MOST_SPECIES - 1, FURTHER_SHARE)), len(allowed))
    present = list(there)
    if COMMON in allowed and rng.random() < COMMON_SHARE:
        present.append(COMMON)
    present += [int(number) for number in rng.permutation(allowed)]
    present = list(dict.fromkeys(present))[: max(wanted, len(there))]
    calls, boxes = [], []
    for number in present:
        for place in range(1 + int(rng.poisson(FURTHER_CALLS))):
            call = _call(species[number], clip_s, rng)
            calls.append(call)
            if place == 0 and number in there:
                boxes.append(Box(species=species[number], start_s=call.start_s, is_there=True))
    for number in absent:
        call = _call(species[number], clip_s, rng, is_decoy=True)
        boxes.append(Box(species=species[number], start_s=call.start_s, is_there=False))
        if rng.random() < DECOY_SHARE:
            calls.append(call)
    return tuple(calls), tuple(boxes)


def _call(one: Species, clip_s: float, rng: np.random.Generator, *, is_decoy: bool = False) -> Call:
    start = round(float(rng.uniform(0, max(clip_s - one.length_s, 0))), 4)
    level = float(rng.uniform(WEAKEST_DB, LOUDEST_DB))
    return Call(species=one, start_s=start, level_db=level, is_decoy=is_decoy)
