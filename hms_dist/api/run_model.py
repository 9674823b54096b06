"""Trained runs: `hms_dist.load_run`, a module that maps canvases, shard sets and recordings to probabilities."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hms_dist.api.export import export_model
from hms_dist.api.recording import draw, draw_windows, prepare, windows_at
from hms_dist.api.shards import Shards
from hms_dist.api.tables import with_dataset
from hms_dist.canvas.compose import Canvas
from hms_dist.config.load import from_stored
from hms_dist.core.errors import UserError
from hms_dist.core.signal_format import RATE_HZ, WINDOW_SAMPLES
from hms_dist.datasets import read_dataset
from hms_dist.panels.panel import Panel
from hms_dist.predict.infer import held_out_folds, load_model
from hms_dist.predict.options import read_run
from hms_dist.predict.tta import Mirror, check_mirrors, mean_outputs, mirrored_canvas, mirrored_outputs
from hms_dist.recordings.annotations import window_starts
from hms_dist.recordings.audio import AudioRecording
from hms_dist.recordings.reader import Recording
from hms_dist.rendering.render import RenderConfig
from hms_dist.results.predictions import TIME_COLUMN, prediction_table
from hms_dist.shards.schema import PanelSpec
from hms_dist.train.data.run_canvas import read_canvas, read_recipe
from hms_dist.train.data.run_data import check_recipes, composed_by, open_shards
from hms_dist.train.folder.checkpoint import noted
from hms_dist.train.folder.run_folder import stored_weights
from hms_dist.train.learn.evaluate import evaluating, groups_of, padded, rows_at_once
from hms_dist.train.ranks.world import AUTOCAST, capability, computed_precision
from hms_dist.train.task import Task, open_task

WINDOW_S = WINDOW_SAMPLES / RATE_HZ
"""Length of the EEG window of a row, seconds."""


class _InPrecision(nn.Module):
    """A network whose forward pass has the automatic mixed precision of its run, as accelerate runs it."""

    def __init__(self, network: nn.Module, precision: str) -> None:
        super().__init__()
        self.network, self._precision = network, precision

    def forward(self, *inputs: Tensor) -> Tensor:
        """Compute the logits of `network`, in float32 or better."""
        device = inputs[0].device
        kind = AUTOCAST.get(computed_precision(self._precision, capability(device)))
        with torch.autocast(device.type, kind, enabled=kind is not None):
            logits: Tensor = self.network(*inputs)
        return logits.float() if kind is not None else logits


class RunModel(nn.Module):
    """The network of a run with its canvas and classes. `model(images)` computes probabilities.

    It is loaded on the CPU, in evaluation mode; `model.to("cuda")` moves it. Computes in the precision of the run.
    """

    def __init__(self, run: Path, checkpoint: str | None, weights: Literal["ema", "raw"] | None) -> None:
        super().__init__()
        self.run = run
        """Run folder."""
        self.config = read_run(run, checkpoint)
        """Options of the run."""
        self.canvas = read_canvas(run)
        """The model's input, with its statistics."""
        self.dataset = read_dataset(run)
        """The data set that the run was trained on."""
        self.classes = self.dataset.classes
        """Names of the classes, in the order of the outputs."""
        recipe = from_stored(RenderConfig, read_recipe(run), str(run / "render.yaml"))
        self.panels: Mapping[str, Panel] = recipe.panels
        """Panels of the run's shard set, by name."""
        self._specs: dict[str, PanelSpec] = {name: panel.spec for name, panel in recipe.panels.items()}
        self.weights_folder = stored_weights(run, checkpoint)
        """Folder of the weights in the run folder."""
        self.task: Task = open_task(self.config, Canvas(self.canvas, self._specs, flips=False), self.dataset)
        """Conversion of the network's outputs to probabilities."""
        self.network, self._facts = load_model(run, self.config, self.dataset, checkpoint, weights)
        """The timm model, or a sliding-window network around one."""
        self._called = (
            _InPrecision(self.network, self.config.precision),
        )  # in a tuple: its weights are registered once
        self.eval()

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.network.parameters()).device

    def forward(self, images: Tensor) -> Tensor:
        """Compute probabilities, float32 [n, classes], of canvases `images` [n, 1, height, width] on the device of the
        model. Raises UserError for images of another shape."""
        expected = (1, self.canvas.height, self.canvas.width)
        if images.ndim != 4 or tuple(images.shape[1:]) != expected:
            raise UserError(f"images: expected [n, {', '.join(map(str, expected))}], found {list(images.shape)}")
        images = images.to(next(self.network.parameters()).dtype)
        return self.task.predict(self._called[0], images)[:, : len(self.classes)].float()

    def predict(
        self,
        source: Shards | Recording | AudioRecording | Tensor | NDArray[Any] | str | Path,
        *,
        tta: Sequence[Mirror] = (),
        rows: Sequence[int] | NDArray[np.int64] | None = None,
        start_s: Sequence[float] | NDArray[np.float64] | None = None,
        spectrogram_start_s: Sequence[float] | NDArray[np.float64] | None = None,
        every_s: float | None = None,
        threads: int = 2,
    ) -> pd.DataFrame:
        """Predict rows; returns a DataFrame with a column per class, whose values are probabilities.

        `source`: a shard set (opened, or its folder or URL), a recording, a clip of audio at the rate of the data set,
        or canvases [n, 1, height, width].
        `tta`: mirror images whose predictions are averaged with the row's own: "flip" (left and right exchanged),
        "reverse" (time runs backwards); not for canvases.

        Of a shard set: key, eeg_id, eeg_sub_id and fold (the run's fold where it held out the patient, else null)
        before the classes, as `hms-dist predict` writes them. `rows`: rows of its index; None: all. `threads`: reading
        threads.

        Of a recording: eeg_id and time_s, the middle of each 50-second window in seconds, before the classes.
        `start_s`: starts of the windows, seconds; None: one every `every_s` seconds, by default 10.
        `spectrogram_start_s`: the starts of their 10 minutes in the spectrogram's time; None: as `start_s`.

        Of a clip: recording_id and time_s, the middle of each window, before the classes. `every_s`: by default
        test_step_s of the data set, or half of a window; the last window is at the end.

        Raises UserError for a source that the run cannot predict.
        """
        check_mirrors(self.config.model, tta)
        if isinstance(source, Recording):
            starts = _starts(source, every_s or 10.0) if start_s is None else np.asarray(start_s, np.float64)
            others = starts if spectrogram_start_s is None else np.asarray(spectrogram_start_s, np.float64)
            if others.shape != starts.shape:
                raise UserError(f"spectrogram_start_s: expected one a window, {len(starts)}, found {others.size}")
            return self._predict_recording(source, tta, starts, others)
        if isinstance(source, AudioRecording):
            return self._predict_clip(source, tta, start_s, every_s)
        if isinstance(source, Shards | str | Path):
            return self._predict_shards(source.location if isinstance(source, Shards) else source, rows, tta, threads)
        if tta:
            raise UserError("tta: a composed canvas has no mirror images; predict a shard set or a recording")
        images = torch.as_tensor(source)
        size = rows_at_once(self.config.group_size, self.device)
        with torch.no_grad(), evaluating(self):
            found = [self(part.to(self.device)).cpu().double().numpy() for part in torch.split(images, size)]
        return self._table(np.concatenate(found) if found else np.empty((0, len(self.classes))))

    def export(self, out: str | Path, *, program: bool = False) -> Path:
        """Write the weights for plain timm and model_card.json, and return the card's path.

        `out`: a folder, or a .safetensors file, with the card beside it. `program`: also write model.pt2, a program of
        torch.export. Raises UserError for an architecture that cannot be rebuilt or traced.
        """
        return export_model(self, Path(out), program=program)

    def _predict_shards(self, location: str | Path, rows: Any, tta: Sequence[Mirror], threads: int) -> pd.DataFrame:
        shards = open_shards(location, self.canvas, flips=False)
        shards = composed_by(shards, mirrored_canvas(self.canvas, shards.manifest.panels, tta))
        check_recipes(str(location), shards, noted(self._facts, "panels", dict, self.weights_folder))
        chosen = np.arange(len(shards.index)) if rows is None else np.asarray(rows, np.int64)
        size = rows_at_once(self.config.group_size, self.device)
        groups = groups_of(chosen, size)
        whole = [padded(group, size)[0] for group in groups]
        model = self._called[0]
        with closing(shards.reader), evaluating(model):
            task = open_task(self.config, shards.canvas, self.dataset, shards.index.annotated_s)
            outputs = mean_outputs(model, shards, whole, self.device, task=task, mirrors=tta, threads=threads)
            found = [part[: len(group)] for group, part in zip(groups, outputs, strict=True)]
        folds = held_out_folds(self.config, shards, noted(self._facts, "shards", str, self.weights_folder))
        values = np.concatenate([np.empty((0, self.task.num_outputs)), *found])
        frame = shards.index.frame.iloc[chosen]
        table = prediction_table(frame, folds[chosen], values[:, : len(self.classes)], self.dataset)
        return with_dataset(table, self.dataset)

    def _predict_recording(
        self,
        recording: Recording,
        tta: Sequence[Mirror],
        starts: NDArray[np.float64],
        others: NDArray[np.float64],
    ) -> pd.DataFrame:
        panels = self._panels_of(tta)
        prepared, windows = prepare(panels, recording), windows_at(recording, starts, others)
        table = self._predict_windows(
            len(starts), lambda group: draw_windows(panels, prepared, [windows[place] for place in group]), tta
        )
        table.insert(0, "eeg_id", recording.eeg_id)
        table.insert(1, TIME_COLUMN, starts + WINDOW_S / 2)
        return table

    def _predict_clip(
        self, clip: AudioRecording, tta: Sequence[Mirror], start_s: Any, every_s: float | None
    ) -> pd.DataFrame:
        panels, dataset = self._panels_of(tta), self.dataset
        if every_s is not None:
            try:
                dataset = replace(dataset, test_step_s=every_s)
            except ValueError as error:
                raise UserError(f"every_s: {str(error).partition(': ')[2]}") from error
        length_s = clip.samples.shape[1] / clip.rate_hz
        starts = np.asarray(window_starts(length_s, dataset) if start_s is None else start_s, np.float64)
        table = self._predict_windows(len(starts), lambda group: draw(clip, panels, start_s=starts[group]), tta)
        table.insert(0, "recording_id", clip.name)
        table.insert(1, TIME_COLUMN, starts + dataset.window_s / 2)
        return table

    def _panels_of(self, tta: Sequence[Mirror]) -> dict[str, Panel]:
        """Panels that the canvas is drawn from, with those of mirror images."""
        return {name: self.panels[name] for name in mirrored_canvas(self.canvas, self._specs, tta).members}

    def _predict_windows(
        self, number: int, drawn: Callable[[NDArray[np.int64]], Mapping[str, NDArray[Any]]], tta: Sequence[Mirror]
    ) -> pd.DataFrame:
        """Predict `number` windows of a recording; `drawn` draws the panels of some of them."""
        canvas = mirrored_canvas(self.canvas, self._specs, tta)
        size, found = rows_at_once(self.config.group_size, self.device), [np.empty((0, self.task.num_outputs))]
        model = self._called[0]
        with evaluating(model):
            for group in groups_of(np.arange(number), size):
                whole, _ = padded(np.arange(len(group)), size)
                stored = {name: self._to_device(name, array[whole]) for name, array in drawn(group).items()}

                def panels_of(flip: bool, stored: dict[str, Tensor] = stored) -> dict[str, Tensor]:
                    return {name: stored[canvas.swaps.get(name, name) if flip else name] for name in canvas.panels}

                outputs = mirrored_outputs(model, canvas, panels_of, self.task, tta)
                found.append(outputs.cpu().double().mean(0).numpy()[: len(group)])
        return self._table(np.concatenate(found)[:, : len(self.classes)])

    def _to_device(self, name: str, drawn: NDArray[Any]) -> Tensor:
        """Copy drawn panels to the device as they are stored in a shard set: bits packed."""
        stored = np.packbits(drawn, axis=-1) if self._specs[name].dtype == "bit" else drawn
        return torch.from_numpy(np.ascontiguousarray(stored)).to(self.device)

    def _table(self, values: NDArray[np.float64]) -> pd.DataFrame:
        return pd.DataFrame(values, columns=list(self.classes))


def load_run(
    run: str | Path,
    *,
    checkpoint: str | None = None,
    weights: Literal["ema", "raw"] | None = None,
    device: str | torch.device = "cpu",
) -> RunModel:
    """Load the model of a run folder.

    `checkpoint`: best, final, latest or step-<8 digits>; None: best, or final for a run without a fold. `weights`:
    "ema" (the moving average) or "raw"; None: the average if the run kept one.

    Raises UserError for a folder that is not a run, or has no such weights.
    """
    return RunModel(Path(run), checkpoint, weights).to(device)


def _starts(recording: Recording, every_s: float) -> NDArray[np.float64]:
    """Starts of windows, one every `every_s` seconds, all within the recording."""
    if not every_s > 0:
        raise UserError(f"every_s: expected more than 0, found {every_s}")
    last = (len(recording.eeg) - WINDOW_SAMPLES) / RATE_HZ
    if last < 0:
        raise UserError(f"EEG {recording.eeg_id} has {len(recording.eeg)} samples; a window takes {WINDOW_SAMPLES}")
    return np.arange(0, last + 1e-9, every_s)
