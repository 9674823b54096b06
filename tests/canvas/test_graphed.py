"""Passes in memory that is allocated once, and their CUDA graph, give the images of canvas and augmenter."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hms_dist.canvas.augment import AUGMENTATIONS, AugmentConfig, Augmenter, GroupedRows
from hms_dist.canvas.augment.augmentation import Augmentation, OneOf
from hms_dist.canvas.augment.light import BrightnessContrast
from hms_dist.canvas.augment.mix import MixUp
from hms_dist.canvas.graphed import FixedPass, GraphedInputs
from hms_dist.config.load import load

NUM_CLASSES = 6
CPU, GPU = torch.device("cpu"), torch.device("cuda")


@dataclass(frozen=True)
class Passes:
    """Random passes of a canvas in groups of two rows."""

    project: Any
    rng: np.random.Generator
    augmenter: Augmenter

    def draw(self, num_rows: int, *, flips: bool = True, reverses: bool = True) -> dict[str, Any]:
        """The arguments of a pass; panels are in page-locked memory if there is a GPU."""
        panels = self.project.random(self.rng, num_rows)
        return {
            "panels": {name: one.pin_memory() if torch.cuda.is_available() else one for name, one in panels.items()},
            "targets": self.rng.random((num_rows, NUM_CLASSES)),
            "rows": GroupedRows(self.rng.integers(0, 1000, num_rows), np.arange(num_rows), 2, num_rows),
            "flips": self.rng.random(num_rows) < 0.5 if flips else None,
            "reversals": self.rng.random(num_rows) < 0.5 if reverses else None,
            "seed": int(self.rng.integers(2**32)),
            "epoch": int(self.rng.integers(100)),
        }

    def plain(self, given: dict[str, Any], device: torch.device) -> tuple[Tensor, Tensor]:
        """Images and targets of a pass, operation by operation."""
        panels = {name: one.to(device) for name, one in given["panels"].items()}
        chosen = [None if given[name] is None else torch.from_numpy(given[name]) for name in ("flips", "reversals")]
        images = self.project.canvas(panels, *(None if one is None else one.to(device) for one in chosen))
        targets = torch.from_numpy(given["targets"]).to(device)
        return self.augmenter(images, targets, given["rows"], seed=given["seed"], epoch=given["epoch"])

    def fixed(self, given: dict[str, Any], device: torch.device, *, reverses: bool = True) -> FixedPass:
        return FixedPass(self.project.canvas, self.augmenter, given["panels"], NUM_CLASSES, device, reverses=reverses)

    def graphed(self, num_rows: int, *, reverses: bool = True) -> GraphedInputs:
        return GraphedInputs(self.project.canvas, self.augmenter, num_rows, GPU, reverses=reverses)


@pytest.fixture
def passes(rng) -> Callable[..., Passes]:
    """Returns a function that creates the passes of a canvas with augmentations."""

    def create(project: Any, steps: tuple[Augmentation, ...]) -> Passes:
        return Passes(project, rng, Augmenter(AugmentConfig(steps=steps), project.canvas))

    return create


def recipe(name: str) -> tuple[Augmentation, ...]:
    return load(AugmentConfig, ["--config", name]).steps


def fitting(config: Any) -> tuple[Augmentation, ...]:
    """Every augmentation that fits a canvas."""
    every = [kind() for kind in AUGMENTATIONS.values() if kind is not OneOf]
    fits = tuple(one for one in every if one.fault(config.height, config.width) is None)
    return (*fits, OneOf(choices=fits))


@pytest.mark.parametrize("reverses", [False, True])
@pytest.mark.parametrize(("name", "steps"), [("sixteenth_place", "sixteenth_place"), ("seed_003", "peers")])
def test_passes_in_a_row_are_those_of_canvas_and_augmenter(passes, canvas_named, name, steps, reverses):
    """Up to the rounding of a blur of one row, which other algorithms compute than a blur of several."""
    many = passes(canvas_named(name), recipe(steps))
    fixed, num_filled = many.fixed(many.draw(2), CPU, reverses=reverses), 0
    for flips in (True, False, True):
        given = many.draw(2, flips=flips, reverses=reverses)
        if not fixed.fill(**given):
            continue
        num_filled += 1
        found, expected = fixed.compute(), many.plain(given, CPU)
        torch.testing.assert_close(found[0], expected[0], rtol=0, atol=1e-6)
        assert torch.equal(found[1], expected[1])
    assert num_filled


class OnOneDevice(TorchDispatchMode):
    """Rejects operations with a tensor on another device, such as copies between host and GPU."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device, self.num_operations = device, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        found = {one.device for one in tree_leaves((args, kwargs, results)) if isinstance(one, Tensor)}
        assert found <= {self.device}, (func, found)
        self.num_operations += 1
        return results


def test_nothing_is_copied_between_devices_and_no_shape_depends_on_values(passes, project):
    """On the device without memory every operation whose shape or flow depends on values fails."""
    canvas, meta = project.canvas, torch.device("meta")
    many = passes(project, fitting(canvas.config))
    given = many.draw(2)
    if canvas.signals:
        assert many.graphed(2)(**given) is None
        return
    fixed = many.fixed(given, meta)
    fixed.compute()  # tensors that are kept
    with OnOneDevice(meta) as mode:
        images, targets = fixed.compute()
    assert images.shape == (2, 1, canvas.config.height, canvas.config.width)
    assert targets.shape == (2, NUM_CLASSES)
    assert mode.num_operations > 50


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
class TestGraphs:
    """The graph and, on the same GPU, canvas and augmenter operation by operation."""

    @pytest.fixture(autouse=True)
    def exact(self, monkeypatch):
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # as in a run

    def test_a_replay_gives_the_images_of_the_canvas_and_the_augmenter(self, passes, project):
        """Passes in a row, with flips and without; the last of them is smaller."""
        many = passes(project, fitting(project.canvas.config))
        graphed, num_graphed = many.graphed(4), 0
        for number in range(8):
            given = many.draw(4, flips=number % 3 > 0)
            found, expected = graphed(**given), many.plain(given, GPU)
            if found is not None:
                num_graphed += 1
                torch.testing.assert_close(found[0], expected[0], rtol=1e-5, atol=1e-5)
                torch.testing.assert_close(found[1], expected[1], rtol=0, atol=1e-12)
        assert num_graphed > 4 or project.canvas.signals
        assert graphed(**many.draw(2)) is None

    @pytest.mark.parametrize("name", ["sixteenth_place", "peers"])
    def test_recipes(self, passes, sixteenth_place, name):
        many = passes(sixteenth_place, recipe(name))
        graphed, num_graphed = many.graphed(32, reverses=False), 0
        for _ in range(6):
            given = many.draw(32, reverses=False)
            found, expected = graphed(**given), many.plain(given, GPU)
            if found is not None:
                num_graphed += 1
                torch.testing.assert_close(found[0], expected[0], rtol=1e-5, atol=1e-5)
                torch.testing.assert_close(found[1], expected[1], rtol=0, atol=1e-12)
        assert num_graphed > 3

    def test_passes_may_follow_each_other_without_waiting(self, passes, sixteenth_place):
        """The host fills the next pass while the GPU computes; results are copied in the order of the stream."""
        many = passes(sixteenth_place, recipe("peers"))
        graphed = many.graphed(8)
        given = [one for one in (many.draw(8) for _ in range(12)) if graphed(**one) is not None]
        torch.cuda.set_sync_debug_mode("error")
        try:
            found = [tuple(tensor.clone() for tensor in graphed(**one)) for one in given]
        finally:
            torch.cuda.set_sync_debug_mode("default")
        for one, (images, targets) in zip(given, found, strict=True):
            expected = many.plain(one, GPU)
            torch.testing.assert_close(images, expected[0], rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(targets, expected[1], rtol=0, atol=1e-12)
        assert len(given) > 6

    def test_random_generators_are_left_alone(self, passes, sixteenth_place):
        many = passes(sixteenth_place, recipe("sixteenth_place"))
        graphed, before = many.graphed(4), torch.cuda.get_rng_state()
        for _ in range(3):
            graphed(**many.draw(4))
        assert torch.equal(torch.cuda.get_rng_state(), before)

    def test_steps_that_wait_for_the_gpu_are_computed_without_a_graph(self, passes, sixteenth_place, caplog):
        """The stream is as before, and other passes can still be captured."""
        stream = torch.cuda.current_stream()
        many = passes(sixteenth_place, (Waiting(probability=1.0),))
        graphed = many.graphed(2)
        with caplog.at_level(logging.WARNING):
            assert graphed(**many.draw(2)) is None
        assert "no CUDA graph of canvas and augmentation" in caplog.text
        assert graphed(**many.draw(2)) is None
        assert torch.cuda.current_stream() == stream
        assert torch.cuda.get_sync_debug_mode() == 0
        other = passes(sixteenth_place, (MixUp(probability=1.0),))
        given = other.draw(2)
        images, _ = other.graphed(2)(**given)
        torch.testing.assert_close(images, other.plain(given, GPU)[0], rtol=1e-5, atol=1e-5)


class Waiting(BrightnessContrast):
    """A step that reads a number on the host."""

    def apply(self, images: Tensor, parameters: Tensor, layout: Any) -> Tensor:
        return super().apply(images, parameters * float(parameters.max() >= 0), layout)
