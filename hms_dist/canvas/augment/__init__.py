"""Augmentations of training rows, batched on the device. Draws are keyed by (seed, epoch, row), never by rank."""

from hms_dist.canvas.augment.augmentation import Augmentation, OneOf
from hms_dist.canvas.augment.augmenter import AugmentConfig, Augmenter, partner_places
from hms_dist.canvas.augment.blur import GaussianBlur, MotionBlur
from hms_dist.canvas.augment.erase import CoarseDropout, RandomErasing, XYMasking
from hms_dist.canvas.augment.flips import draw_flips, draw_reversals
from hms_dist.canvas.augment.groups import GroupedRows, one_group
from hms_dist.canvas.augment.light import BrightnessContrast, GaussNoise
from hms_dist.canvas.augment.mix import CutMix, MixUp
from hms_dist.canvas.augment.row_facts import RowFacts, row_facts
from hms_dist.canvas.augment.shift import TimeShift
from hms_dist.canvas.augment.signal_mixes import SignalMixUp, SignalPasteOther
from hms_dist.canvas.augment.signal_steps import SignalPaste, SignalReverse, SignalShift

__all__ = [
    "AUGMENTATIONS",
    "SIGNAL_AUGMENTATIONS",
    "AugmentConfig",
    "Augmentation",
    "Augmenter",
    "GroupedRows",
    "RowFacts",
    "draw_flips",
    "draw_reversals",
    "one_group",
    "partner_places",
    "row_facts",
]

AUGMENTATIONS: dict[str, type[Augmentation]] = {
    kind.__name__: kind
    for kind in (
        BrightnessContrast,
        GaussNoise,
        GaussianBlur,
        MotionBlur,
        CoarseDropout,
        RandomErasing,
        XYMasking,
        TimeShift,
        MixUp,
        CutMix,
        OneOf,
    )
}
"""Augmentations of images by their class_path in a configuration."""
SIGNAL_AUGMENTATIONS: dict[str, type[Augmentation]] = {
    kind.__name__: kind for kind in (SignalShift, SignalReverse, SignalPaste, SignalPasteOther, SignalMixUp, MixUp)
}
"""Augmentations of signals by their class_path in a configuration."""
