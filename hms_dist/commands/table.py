"""The table of commands: their modules, and their options from command-line words.

A command is a module with `run(command)` and a dataclass of its options; `check(command)` is optional and checks
everything that needs no input file. A module is imported only when its command is called, because importing torch, timm
and pandas takes seconds.
"""

import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from hms_dist.core.errors import UserError, suggestion
from hms_dist.core.plugins import load_plugins, split_plugins

COMMANDS = {
    "simulate": ("hms_dist.recordings.simulate", "Simulate", "make EEG recordings with known label distributions"),
    "import": ("hms_dist.commands.import_recordings", "Import", "import EDF and other recordings with their labels"),
    "subset": ("hms_dist.labels.subset", "Subset", "derive a label table: balanced, high votes, one row per EEG, ..."),
    "render": ("hms_dist.rendering.render", "Render", "render recordings into a shard set"),
    "finish": ("hms_dist.rendering.finish", "Finish", "complete a set whose slices are rendered"),
    "verify": ("hms_dist.rendering.verify", "Verify", "check a shard set, every byte of it, and repair it"),
    "statistics": ("hms_dist.signals.statistics", "Statistics", "compute the scales of the trace picture"),
    "keys": ("hms_dist.report.keys", "Keys", "list the keys of a shard set by class, votes, patient and fold"),
    "show": ("hms_dist.report.show", "Show", "draw a sample's panels, or its canvas, as a PNG"),
    "estimate": ("hms_dist.commands.estimate", "Estimate", "estimate disk, GPU memory and hours of a recipe"),
    "train": ("hms_dist.train.loop", "TrainConfig", "train one model, on several GPUs under accelerate or torchrun"),
    "grid": ("hms_dist.grid.grid", "Grid", "train recipes x seeds x folds, one run after another"),
    "oof": ("hms_dist.grid.oof", "Oof", "join the held-out predictions of all folds into one table"),
    "ablation": ("hms_dist.grid.ablation", "Ablation", "compare canvases and models on one shard set, as a table"),
    "stages": ("hms_dist.grid.stages", "Stages", "compare the stages of training, fold by fold, as a table"),
    "search": ("hms_dist.search.study", "Search", "search hyperparameters, in trials that many jobs share"),
    "predict": ("hms_dist.commands.predict", "PredictAny", "predict a shard set or recordings with a trained run"),
    "export": ("hms_dist.commands.export", "Export", "export a run's weights for plain timm, with a model card"),
    "pseudolabel": ("hms_dist.predict.pseudolabel", "PseudoLabel", "label low-vote rows by the mean of models"),
    "ensemble": ("hms_dist.predict.ensemble", "Ensemble", "pool models' predictions, by equal or fitted weights"),
    "stack": ("hms_dist.predict.stack", "Stack", "fit a small network to models' predictions, or apply it"),
    "score": ("hms_dist.predict.score", "Score", "score predictions with Kaggle's metric"),
    "report": ("hms_dist.report.page", "Report", "write a page about runs and predictions, one HTML file"),
    "status": ("hms_dist.report.status", "Status", "show how the runs below a folder are doing"),
    "pipeline": ("hms_dist.cluster.pipeline", "Pipeline", "run a chain of commands, from recordings to a report"),
    "sbatch": ("hms_dist.cluster.sbatch", "Sbatch", "print a job script for a Slurm cluster"),
    "completion": ("hms_dist.commands.completion", "Completion", "print a script that completes words in a shell"),
    "recipes": ("hms_dist.commands.recipes", "Recipes", "list what --config finds by name, or print a path"),
}
"""Command -> module, options class, one-line help."""


def command_of(name: str, words: Sequence[str]) -> tuple[ModuleType, Any]:
    """Return a command's module and its options, parsed from `words`, after importing the plug-ins that they name.

    Raises UserError for invalid words.
    """
    if name not in COMMANDS:
        raise UserError(f"unknown command; {suggestion(name, list(COMMANDS))}one of: {', '.join(COMMANDS)}")
    names, words = split_plugins(words)
    load_plugins(*names)
    if name == "train" and not words:
        raise UserError(
            "no recipe; give one, such as --config demo, with --shards and --out; hms-dist recipes lists them"
        )
    module_name, class_name, _ = COMMANDS[name]
    from hms_dist.config.command_line import with_subject
    from hms_dist.config.load import load

    module = importlib.import_module(module_name)
    options = getattr(module, class_name)
    return module, load(options, with_subject(options, words), prog=f"hms-dist {name}")


def check(words: Sequence[str]) -> None:
    """Check a command and its options as far as possible without its input files. Raises UserError."""
    module, command = command_of(words[0], words[1:])
    if hasattr(module, "check"):
        module.check(command)
