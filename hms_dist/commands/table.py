"""The table of verbs: where each one lives, and its options from command-line words.

A verb is a module with `run(command)` and the dataclass of its options, and `check(command)` if it can refuse more than
its options before anything is there. Modules are imported only when their verb is asked for, because torch, timm and
pandas take seconds.
"""

import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from hms_dist.core.errors import UserError

COMMANDS = {
    "simulate": ("hms_dist.recordings.simulate", "Simulate", "make EEG recordings with known label distributions"),
    "subset": ("hms_dist.labels.subset", "Subset", "derive a label table: balanced, high votes, one row an EEG, ..."),
    "render": ("hms_dist.rendering.render", "Render", "render recordings into a shard set"),
    "finish": ("hms_dist.rendering.finish", "Finish", "complete a set whose slices are rendered"),
    "verify": ("hms_dist.rendering.verify", "Verify", "check a shard set, every byte of it, and repair it"),
    "statistics": ("hms_dist.signals.statistics", "Statistics", "compute the scales of the trace picture"),
    "show": ("hms_dist.report.show", "Show", "draw a sample's panels, or its canvas, as a PNG"),
    "grid": ("hms_dist.grid.grid", "Grid", "train recipes x seeds x folds, one run after another"),
    "oof": ("hms_dist.grid.oof", "Oof", "join the held-out predictions of all folds into one table"),
    "ablation": ("hms_dist.grid.ablation", "Ablation", "compare canvases and models on one shard set, as a table"),
    "stages": ("hms_dist.grid.stages", "Stages", "compare the stages of training, fold by fold, as a table"),
    "search": ("hms_dist.search.study", "Search", "search hyperparameters, in trials that many jobs share"),
    "predict": ("hms_dist.commands.predict", "PredictAny", "predict a shard set or recordings with a trained run"),
    "pseudolabel": ("hms_dist.predict.pseudolabel", "PseudoLabel", "label low-vote rows by the mean of models"),
    "ensemble": ("hms_dist.predict.ensemble", "Ensemble", "pool models' predictions, by equal or fitted weights"),
    "stack": ("hms_dist.predict.stack", "Stack", "fit a small network to models' predictions, or apply it"),
    "score": ("hms_dist.predict.score", "Score", "score predictions with Kaggle's metric"),
    "report": ("hms_dist.report.page", "Report", "write a page about runs and predictions, one HTML file"),
    "status": ("hms_dist.report.status", "Status", "show how the runs below a folder are doing"),
    "pipeline": ("hms_dist.cluster.pipeline", "Pipeline", "run a chain of commands, from recordings to a report"),
    "sbatch": ("hms_dist.cluster.sbatch", "Sbatch", "print a job script for a Slurm cluster"),
}
"""Verb -> module, options class, one line of help."""


def command_of(verb: str, words: Sequence[str]) -> tuple[ModuleType, Any]:
    """The module of a verb, and its options as the words say. Raises UserError for what they cannot say."""
    if verb not in COMMANDS:
        from hms_dist.config.checks import meant

        raise UserError(f"unknown command; {meant(verb, list(COMMANDS))}one of: {', '.join(COMMANDS)}")
    module_name, class_name, _ = COMMANDS[verb]
    from hms_dist.config.command_line import with_subject
    from hms_dist.config.load import load

    module = importlib.import_module(module_name)
    options = getattr(module, class_name)
    return module, load(options, with_subject(options, words), prog=f"hms-dist {verb}")


def check(words: Sequence[str]) -> None:
    """Refuse, by UserError, what can be refused of a verb and its words before any file that it reads is there."""
    module, command = command_of(words[0], words[1:])
    if hasattr(module, "check"):
        module.check(command)
