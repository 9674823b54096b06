"""Every canvas of configs/canvas with the panels that it reads."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hms_dist.canvas.compose import Canvas, CanvasConfig
from hms_dist.config.load import load
from hms_dist.panels.eeg_spectrogram import EegSpectrogram
from hms_dist.panels.kaggle_spectrogram import KaggleSpectrogram
from hms_dist.panels.multitaper import Multitaper
from hms_dist.panels.panel import Panel, Window
from hms_dist.panels.pcen import Pcen
from hms_dist.panels.scalogram import Scalogram
from hms_dist.panels.segment_spectrogram import SegmentSpectrogram
from hms_dist.panels.traces import Traces
from hms_dist.panels.wavelet_statistics import WaveletStatistics
from hms_dist.recordings.reader import Recording
from hms_dist.rendering.render import RenderConfig
from hms_dist.shards.schema import PanelSpec, mirrored
from hms_dist.train.data.statistics import filled

CONFIGS = Path(__file__).parents[2] / "configs/canvas"
BASELINE = EegSpectrogram(window_samples=128, fft_samples=1024, hop_samples=39, centred=True)
PANELS: Mapping[str, Panel] = {
    "kaggle_spectrogram": KaggleSpectrogram(),
    "eeg_spectrogram": BASELINE,
    "eeg_spectrogram_30s": replace(BASELINE, hop_samples=24, span_s=30.0),
    "eeg_spectrogram_10s": replace(BASELINE, hop_samples=8, span_s=10.0),
    "wavelet_statistics": WaveletStatistics(),
    "multitaper": Multitaper(),
    "scalogram": Scalogram(),
    "pcen": Pcen(),
    "traces": Traces(),
    "traces_flipped": Traces(flipped=True),
    **{
        name: panel
        for name, panel in load(RenderConfig, ["--config", str(CONFIGS.parent / "render/seed_003.yaml")]).panels.items()
        if isinstance(panel, SegmentSpectrogram)
    },
}
AUDIO = load(RenderConfig, ["--config", str(CONFIGS.parent / "render/audio.yaml")]).panels


@dataclass(frozen=True)
class Project:
    """A canvas of the project, and the panels it reads."""

    path: Path
    config: CanvasConfig
    panels: dict[str, Panel]

    @property
    def specs(self) -> dict[str, PanelSpec]:
        return {name: panel.spec for name, panel in self.panels.items()}

    @property
    def canvas(self) -> Canvas:
        return Canvas(self.config, self.specs)

    def picture(
        self, stored: dict[str, torch.Tensor], flip: torch.Tensor | None = None, reverse: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The canvas's picture of all members, given to it as the reader does: swapped in flipped rows."""
        panels = {name: array.clone() for name, array in stored.items()}
        for name, other in self.canvas.swaps.items():
            if flip is not None:
                panels[name][flip] = stored[other][flip]
        return self.canvas(panels, flip, reverse)

    def drawn(self, recording: Recording) -> dict[str, torch.Tensor]:
        """Stored arrays of the first window of a recording, one row."""
        window = Window(recording=recording, start=0, spectrogram_offset_s=0.0)
        panels = {name: panel.draw(panel.prepare(recording), window) for name, panel in self.panels.items()}
        return {name: torch.from_numpy(self._stored(name, array))[None] for name, array in panels.items()}

    def random(self, rng: np.random.Generator, num_rows: int) -> dict[str, torch.Tensor]:
        """Stored arrays of any bits at all."""
        stored = {}
        for name, spec in self.specs.items():
            bits = rng.integers(0, 256, (num_rows, spec.num_bytes), dtype=np.uint8)
            stored[name] = torch.from_numpy(bits.view(spec.stored_dtype).reshape(num_rows, *spec.stored_shape))
        return stored

    def mirror_image(self, stored: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The renderer's output for the mirror image of the recording."""
        result = {}
        for name, array in stored.items():
            regions = self.specs[name].regions
            if regions:
                result[name] = array[:, [regions.index(region) for region in mirrored(regions)]]
        if "traces" in stored:
            result |= {"traces": stored["traces_flipped"], "traces_flipped": stored["traces"]}
        return result

    def _stored(self, name: str, array: np.ndarray) -> np.ndarray:
        return np.packbits(array, axis=-1) if self.specs[name].dtype == "bit" else np.array(array)


def make_project(name: str, **panels: Panel) -> Project:
    """A canvas with the default panels or those given; data-wide statistics are those of one made-up row."""
    path = CONFIGS / f"{name}.yaml"
    config = load(CanvasConfig, ["--config", str(path)])
    config = filled(config, np.tile([1000.0, 0.5, 4000.0], (1, len(config.placements), 1)))
    every = {**(AUDIO if name.startswith("audio_") else PANELS), **panels}
    needed = Canvas(config, {panel: drawer.spec for panel, drawer in every.items()}).members
    return Project(path, config, {panel: every[panel] for panel in needed})


@pytest.fixture(scope="session", params=sorted(path.stem for path in CONFIGS.glob("*.yaml")))
def project(request) -> Project:
    """Each canvas of the project in turn."""
    return make_project(request.param)


@pytest.fixture(scope="session")
def canvas_named() -> Callable[[str], Project]:
    """Any canvas of the project by its name."""
    return make_project


@pytest.fixture(scope="session")
def sixteenth_place() -> Project:
    """The 16th place's, with its own EEG spectrogram."""
    return make_project("sixteenth_place", eeg_spectrogram=EegSpectrogram(reference="record"))


@pytest.fixture(scope="session")
def seed_003() -> Project:
    """The 10-minute spectrogram alone."""
    return make_project("seed_003")


@pytest.fixture(scope="session")
def public_baseline() -> Project:
    """The public baseline's."""
    return make_project("public_baseline")
