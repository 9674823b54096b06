"""The augmenter: a row's result depends on that row alone, and is the same on CPU and GPU; configurations."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from hms_dist.canvas.augment import AUGMENTATIONS, AugmentConfig
from hms_dist.canvas.augment.augmentation import OneOf
from hms_dist.canvas.augment.blur import GaussianBlur, MotionBlur
from hms_dist.canvas.augment.erase import CoarseDropout, XYMasking
from hms_dist.canvas.augment.light import BrightnessContrast, GaussNoise
from hms_dist.canvas.augment.mix import MixUp
from hms_dist.canvas.augment.shift import TimeShift
from hms_dist.canvas.options import CanvasConfig
from hms_dist.config.load import from_dict, load, to_dict
from hms_dist.core.errors import UserError

CHAIN = (
    TimeShift(probability=0.7),
    BrightnessContrast(probability=0.5),
    OneOf(
        probability=0.6,
        choices=(GaussNoise(), GaussianBlur(), OneOf(choices=(MotionBlur(), GaussNoise(variance=(0, 0.1))))),
    ),
    XYMasking(probability=0.5),
    CoarseDropout(probability=0.5, height=5, width=5),
)


def test_a_row_is_the_same_alone_and_in_any_batch(group, augment, each_by_itself):
    """Up to rounding: the number of rows may change the order of sums in a convolution."""
    for steps in ((each_by_itself,), CHAIN):
        whole, _ = augment(group, *steps)
        for positions in ([5], [7, 0, 2], [3, 3]):
            part, targets = augment(group.only(positions), *steps)
            torch.testing.assert_close(part, whole[positions], rtol=0, atol=1e-6)
            assert torch.equal(targets, group.targets[positions])


def test_a_group_is_the_same_whatever_came_before(group, augment, each):
    first = augment(group, each)
    augment(group.only([1, 2]), *CHAIN, epoch=9)
    torch.manual_seed(1)
    again = augment(group, each)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])


def test_seed_epoch_and_place_in_the_list_change_the_draws(rng, group, augment, each):
    """With many rows, because eight may all draw the same one of three kernels twice."""
    rows = group.rows[0] + np.arange(48)
    group = type(group)(group.images.repeat(6, 1, 1, 1), group.targets.repeat(6, 1), rows)
    found = [
        augment(group, each)[0],
        augment(group, each, seed=int(rng.integers(2**32)))[0],
        augment(group, each, epoch=3)[0],
    ]
    still = CoarseDropout(probability=0.0, height=1, width=1)
    found.append(augment(group, still, each)[0])
    for number, one in enumerate(found):
        assert one.isfinite().all()
        assert not torch.equal(one, group.images)
        assert not any(torch.equal(one, other) for other in found[:number])


def test_each_is_applied_with_its_probability(many, each):
    for probability in (0.0, 0.3, 1.0):
        parts = replace(each, probability=probability).parts(many)
        applied = np.sum([chosen for _, chosen, _ in parts], axis=0)
        spread = np.sqrt(probability * (1 - probability) / len(applied))
        assert applied.mean() == pytest.approx(probability, abs=5 * spread)
        assert applied.max() <= 1


def test_one_of_chooses_exactly_one_by_weight(many):
    choices = (GaussNoise(probability=0.1), GaussianBlur(probability=0.0), MotionBlur(probability=0.3))
    found = {type(step): chosen for step, chosen, _ in OneOf(probability=0.4, choices=choices).parts(many)}
    assert not (found[GaussNoise] & found[MotionBlur]).any()
    for kind, share in ((GaussNoise, 0.1), (GaussianBlur, 0), (MotionBlur, 0.3)):
        assert found[kind].mean() == pytest.approx(share, abs=5 * np.sqrt(share * (1 - share) / 20_000))


def test_the_draws_of_different_steps_are_independent(many):
    noise = GaussNoise(probability=0.3)
    first, second = (next(noise.parts(many.within(place)))[1] for place in (0, 1))
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / np.sqrt(20_000)


def test_steps_are_applied_in_their_order(group, augment):
    dark = BrightnessContrast(probability=1.0, clip=(0.0, 0.5))
    holes = CoarseDropout(probability=1.0, fill=9.0, height=9, width=9)
    assert augment(group, dark, holes)[0].max() == 9
    assert augment(group, holes, dark)[0].max() == 0.5


def test_no_steps_change_nothing(group, augment):
    images, targets = augment(group)
    assert torch.equal(images, group.images)
    assert torch.equal(targets, group.targets)


def test_augmentation_leaves_torchs_generator_alone(group, augment):
    """Other code may use it."""
    before = torch.get_rng_state()
    augment(group, *CHAIN, MixUp(probability=1.0))
    assert torch.equal(before, torch.get_rng_state())


def test_every_augmentation_goes_through_a_configuration(each):
    config = AugmentConfig(reverse_probability=0.25, steps=(each, *CHAIN))
    assert from_dict(AugmentConfig, to_dict(config)) == config


def test_the_16th_places_chain(repository):
    config = load(AugmentConfig, ["--config", str(repository / "configs/augment/sixteenth_place.yaml")])
    light, one_of, holes = config.steps
    assert light == BrightnessContrast(probability=0.5, brightness=0.1, contrast=0.1)
    assert isinstance(one_of, OneOf)
    assert one_of.probability == 0.4
    assert one_of.choices == (GaussNoise(variance=(0.1, 0.3)), GaussianBlur(size=(3, 7)), MotionBlur(size=(3, 7)))
    assert holes == CoarseDropout(probability=0.5, num_holes=5, height=64, width=64, fill=0)
    config.check(load(CanvasConfig, ["--config", "sixteenth_place"]))


def test_the_document_lists_every_augmentation(repository):
    text = (repository / "docs/augmentation.md").read_text()
    assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) == list(AUGMENTATIONS)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": [{"class_path": "Sharpen"}]}, "unknown augmentation 'Sharpen'; one of: "),
        ({"steps": [{"class_path": "os.system"}]}, "unknown augmentation 'os.system'; one of: "),
        ({"steps": [{"class_path": "MixUp", "init_args": {"beta": 1}}]}, "unknown option 'beta'; one of: "),
        ({"steps": [{"class_path": "MixUp", "init_args": {"alpha": -1}}]}, "alpha: expected above 0, found -1"),
        ({"reverse_probability": 2}, "reverse_probability: expected 0 to 1, found 2"),
        ({"steps": [{"class_path": "OneOf", "init_args": {"choices": []}}]}, "choices: OneOf expects at least one"),
    ],
)
def test_bad_configurations_are_refused_in_one_line(values, message):
    with pytest.raises(UserError) as error:
        from_dict(AugmentConfig, values)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (CoarseDropout(), "CoarseDropout does not fit the canvas of 48 x 96 pixels: holes of 64 x 64 are too large"),
        (OneOf(choices=(MotionBlur(size=(3, 97)),)), "OneOf does not fit the canvas of 48 x 96 pixels: a kernel of 97"),
    ],
)
def test_what_does_not_fit_the_canvas_is_refused(canvas, step, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        AugmentConfig(steps=(step,)).check(canvas.config)
    assert message in str(error.value)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gives_the_numbers_of_the_cpu(group, augment, each, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # as in a run
    for steps in ((each,), CHAIN):
        images, targets = augment(group, *steps)
        there = type(group)(group.images.cuda(), group.targets.cuda(), group.rows)
        on_gpu, mixed = augment(there, *steps)
        torch.testing.assert_close(on_gpu.cpu(), images, rtol=0, atol=1e-5)
        torch.testing.assert_close(mixed.cpu(), targets, rtol=0, atol=1e-12)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_the_host_never_waits_for_the_gpu(group, augment, each):
    there = type(group)(group.images.cuda(), group.targets.cuda(), group.rows)
    augment(there, each, *CHAIN)
    torch.cuda.set_sync_debug_mode("error")
    try:
        augment(there, each, *CHAIN)
    finally:
        torch.cuda.set_sync_debug_mode("default")
