"""The command `export`: weights of a run for plain timm, with a model card."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hms_dist.api.run_model import load_run
from hms_dist.core.logging import LOG


@dataclass(frozen=True, kw_only=True)
class Export:
    """Export the model of a run: weights that plain timm loads, and model_card.json with a snippet that does it."""

    run: Path
    """Run folder."""
    out: Path
    """Folder to write, created if missing; or the .safetensors file, with the card beside it."""
    checkpoint: str | None = None
    """Weights of the run: best, final, latest or step-<8 digits>. None: best, or final for a run without a fold."""
    weights: Literal["ema", "raw"] | None = None
    """ema: the moving average; raw: the raw weights. None: the average if the run kept one."""
    program: bool = False
    """Also write model.pt2, a program of torch.export that needs neither timm nor hms_dist."""


def run(command: Export) -> None:
    """Run the command `export`."""
    model = load_run(command.run, checkpoint=command.checkpoint, weights=command.weights)
    LOG.info("%s exported: %s", command.run, model.export(command.out, program=command.program))
