"""Augmentation of stored signals in time: what each step does, keyed by row, and the rows that it may change."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hms_dist.canvas.augment import AugmentConfig, Augmenter
from hms_dist.canvas.augment.augmentation import OneOf
from hms_dist.canvas.augment.groups import one_group
from hms_dist.canvas.augment.light import GaussNoise
from hms_dist.canvas.augment.mix import CutMix, MixUp
from hms_dist.canvas.augment.row_facts import mixed_targets
from hms_dist.canvas.augment.signal_steps import SignalPaste, SignalReverse, SignalShift
from hms_dist.core.errors import UserError
from hms_dist.panels import LogMel
from hms_dist.panels.panel import AudioWindow
from hms_dist.recordings.audio import AudioRecording

RATE_HZ, MARGIN, NUM_ROWS = 1000, 100, 40
LOG_MEL = LogMel(rate_hz=RATE_HZ, window_s=1.0, fft_samples=64, window_samples=64, hop_samples=16, num_mels=8)
NAN = float("nan")


def plain(stored: torch.Tensor) -> torch.Tensor:
    return stored.float() / 32768


def test_without_steps_signals_stay_as_they_are_stored(augment, stored, targets):
    found, mixed = augment()
    assert found.dtype == torch.int16
    assert torch.equal(found, stored)
    assert mixed.isnan().equal(targets.isnan())


def test_a_shifted_row_is_drawn_as_the_recording_at_the_shifted_window(augment, canvas, stored):
    """As if the renderer had cut the window there."""
    found, _ = augment(SignalShift(probability=1, max_s=0.1))
    images = canvas({"waveform": found})
    shifts = set()
    for row in range(NUM_ROWS):
        recording = AudioRecording(name="a", samples=plain(stored[row]).numpy(), rate_hz=RATE_HZ)
        inside = found[row, 0, MARGIN:-MARGIN]
        windows = stored[row, 0].unfold(0, 1000, 1).float() / 32768
        start = int((windows - inside).abs().amax(1).argmin())
        assert torch.equal(windows[start], inside)
        drawn = LOG_MEL.log_power(AudioWindow(recording=recording, start=start, num_samples=1000).samples())
        np.testing.assert_allclose(images[row, 0].numpy(), drawn[0], atol=2e-4)
        shifts.add(start - MARGIN)
    assert len(shifts) > 10
    assert max(map(abs, shifts)) <= MARGIN


def test_steps_change_only_rows_of_their_kind(augment, stored, facts):
    for kind, allowed in (("positive", facts.positive), ("negative", ~facts.positive)):
        for step in (
            SignalReverse(rows=kind, probability=1, part="row"),
            OneOf(rows=kind, probability=1, choices=(SignalReverse(part="row"),)),
            OneOf(probability=1, choices=(SignalReverse(rows=kind, part="row"),)),
        ):
            changed = (augment(step)[0] != plain(stored)).any(-1)[:, 0].numpy()
            assert np.array_equal(changed, allowed)


def test_a_reversed_annotation_keeps_its_place(augment, stored, facts):
    found, _ = augment(SignalReverse(probability=1, fade_s=0.0))
    for row, (first_s, last_s) in enumerate(facts.annotated_s):
        first, last = (int(np.rint(at * RATE_HZ)) + MARGIN for at in (first_s, last_s))
        expected = plain(stored[row, 0]).clone()
        expected[first : last + 1] = expected[first : last + 1].flip(0)
        assert torch.equal(found[row, 0], expected)


def test_a_copy_of_the_annotation_is_pasted_within_the_row(augment, stored, facts):
    found, _ = augment(SignalPaste(probability=1, max_s=0.7, fade_s=0.0))
    moved = 0
    for row, (first_s, last_s) in enumerate(facts.annotated_s):
        first, last = (int(np.rint(at * RATE_HZ)) + MARGIN for at in (first_s, last_s))
        before, after = plain(stored[row, 0]), found[row, 0]
        changed = torch.nonzero(before != after)[:, 0]
        if not len(changed):
            continue
        shift = int(changed[0]) - first if changed[0] < first else int(changed[-1]) - last
        assert MARGIN <= first + shift <= last + shift < 1200 - MARGIN
        expected = before.clone()
        expected[first + shift : last + shift + 1] = before[first : last + 1]
        assert torch.equal(after, expected)
        moved += 1
    assert moved > NUM_ROWS / 2


def test_fades_leave_no_jump(augment, stored):
    """Of two constant levels, neighbours differ by at most the difference over the fade."""
    stored[:] = 0
    stored[:, :, 600:] = 16384
    found, _ = augment(SignalPaste(probability=1, max_s=0.7, fade_s=0.02))
    jumps = found.diff(dim=-1).abs()
    jumps[..., 599] = 0  # the step itself, and its copies
    assert jumps.sort(dim=-1).values[..., -2].max() < 0.5 / 20 + 1e-6


def test_a_step_sees_the_annotation_where_an_earlier_one_moved_it(augment, stored, facts):
    """Reversed after a shift, the shifted annotation is reversed in its place."""
    shift = SignalShift(probability=1, max_s=0.05)
    alone, _ = augment(shift)
    found, _ = augment(shift, SignalReverse(probability=1, fade_s=0.0))
    for row, (first_s, last_s) in enumerate(facts.annotated_s):
        first, last = (int(np.rint(at * RATE_HZ)) + MARGIN for at in (first_s, last_s))
        found_shift = next(
            at for at in range(-50, 51)
            if torch.equal(alone[row, 0, 200:1000], plain(stored[row, 0])[200 - at : 1000 - at])
        )  # fmt: skip
        expected = alone[row, 0].clone()
        part = slice(first + found_shift, last + found_shift + 1)
        expected[part] = expected[part].flip(0)
        assert torch.equal(found[row, 0], expected)


def test_mixes_join_labels_and_masks(augment, stored, targets):
    found, mixed = augment(MixUp(probability=1, alpha=4.0))
    assert (found != plain(stored)).any(-1).all()
    known_before, known_after = ~targets.isnan(), ~mixed.isnan()
    assert (known_after | ~known_before).all()
    assert known_after.sum() > known_before.sum()
    assert (mixed[known_before] >= targets[known_before]).all()


def test_known_wins_over_unknown_and_present_over_absent():
    own, other = torch.tensor([[1.0, 0, NAN, 0, NAN, 1]]), torch.tensor([[0.0, NAN, 1, 0, NAN, NAN]])
    share = torch.tensor([[0.3]])
    joined = mixed_targets(own, other, share, yes_no=True)
    assert joined[0, [0, 1, 2, 3, 5]].tolist() == [1, 0, 1, 0, 1]
    assert joined[0, 4].isnan()
    shares = mixed_targets(torch.tensor([[1.0, 0]]), torch.tensor([[0.0, 1]]), share, yes_no=False)
    torch.testing.assert_close(shares, torch.tensor([[0.3, 0.7]]))


def test_images_are_augmented_after_the_signal(canvas, facts, stored, targets):
    """Both lists draw independently."""
    config = AugmentConfig(signal_steps=(MixUp(probability=1),), steps=(MixUp(probability=1),))
    augmenter, rows = Augmenter(config, canvas, facts), one_group(np.arange(NUM_ROWS))
    panels, mixed = augmenter.signals({"waveform": stored}, targets, rows, seed=1, epoch=0)
    images, twice = augmenter(canvas(panels), mixed, rows, seed=1, epoch=0)
    assert (images != canvas(panels)).flatten(1).any(1).all()
    assert (~twice.isnan()).sum() >= (~mixed.isnan()).sum() > (~targets.isnan()).sum()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"signal_steps": (GaussNoise(),)}, "signal_steps: GaussNoise cannot change signals"),
        ({"steps": (SignalShift(),)}, "steps: SignalShift cannot change images"),
        ({"signal_steps": (OneOf(choices=(MixUp(), CutMix())),)}, "signal_steps: OneOf cannot change signals"),
    ],
)
def test_steps_in_the_wrong_list_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        AugmentConfig(**options)


def test_what_does_not_fit_is_refused_in_one_line(canvas, facts):
    config = AugmentConfig(signal_steps=(SignalShift(max_s=0.2),))
    with pytest.raises(
        UserError, match=r"SignalShift does not fit 'waveform': max_s 0.2 is beyond its margin of 0.1 s"
    ):
        Augmenter(config, canvas, facts)
    config.check(canvas.config)
    with pytest.raises(ValueError, match="all drawn from one signal, 'log_mel' is stored"):
        config.check(replace(canvas.config, drawn={}))
