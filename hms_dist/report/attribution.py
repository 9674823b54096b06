"""Attribution: which pixels of a canvas a run's prediction depends on, as gradient x input."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d

from hms_dist.predict.infer import load_model
from hms_dist.report.page_runs import RunFacts
from hms_dist.train.data.run_data import ShardSet
from hms_dist.train.learn.evaluate import evaluating
from hms_dist.train.task import open_task

BRIGHTEST = 0.995
"""Quantile of the attributions that is drawn brightest."""


class Attribution:
    """Attributions by the weights of a run. Raises UserError if it has none."""

    def __init__(self, run: RunFacts, shards: ShardSet) -> None:
        self._task = open_task(run.config, shards.canvas, run.dataset)
        self._model, _ = load_model(run.folder, run.config, run.dataset)
        self._model.requires_grad_(False)  # only the gradient of the picture is needed
        self._num_classes = run.dataset.num_classes

    def __call__(self, image: Tensor) -> NDArray[np.float64]:
        """How much each pixel contributes to the most probable class of one canvas, float32 [1, 1, height, width]:
        [height, width], 0 to 1.

        The absolute value of gradient x input (Shrikumar et al., 2016), with the gradient of the log-probability, as a
        mean over about a hundredth of the height.
        """
        pixels = image.to(next(self._model.parameters()).dtype).clone().requires_grad_()
        with torch.enable_grad(), evaluating(self._model):
            found = self._task.predict(self._model, pixels)[0, : self._num_classes]
            (gradient,) = torch.autograd.grad(found.max().clamp_min(1e-12).log(), pixels)
        size = 2 * max(1, image.shape[-2] // 128) + 1
        heat = avg_pool2d((gradient * pixels.detach()).abs(), size, 1, size // 2, count_include_pad=False)[0, 0]
        values = heat.double().numpy()
        most = np.quantile(values, BRIGHTEST)
        return np.clip(values / most, 0, 1) if most > 0 else np.zeros_like(values)
