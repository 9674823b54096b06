"""`hms-dist <verb>`: one table of verbs; each verb lives beside what it does.

A verb is a module with `run(command)` and the dataclass of its options. Modules are imported only when
their verb is called, because torch, timm and pandas take seconds.
"""

import importlib
import os
import sys
from collections.abc import Sequence

from hms_dist.errors import UserError, verdict

VERBS = {
    "simulate": ("hms_dist.recordings.simulate", "Simulate", "make EEG recordings with known label distributions"),
    "subset": ("hms_dist.subset", "Subset", "derive a label table: balanced, high votes, one row an EEG, ..."),
    "render": ("hms_dist.render", "Render", "render recordings into a shard set"),
    "finish": ("hms_dist.shards.finish", "Finish", "complete a set whose slices are rendered"),
    "verify": ("hms_dist.verify", "Verify", "check a shard set, every byte of it, and repair it"),
    "statistics": ("hms_dist.signals.statistics", "Statistics", "compute the scales of the trace picture"),
    "show": ("hms_dist.report.show", "Show", "draw a sample's panels, or its canvas, as a PNG"),
    "grid": ("hms_dist.grid.grid", "Grid", "train recipes x seeds x folds, one run after another"),
    "oof": ("hms_dist.grid.oof", "Oof", "join the held-out predictions of all folds into one table"),
    "ablation": ("hms_dist.grid.ablation", "Ablation", "compare canvases and models on one shard set, as a table"),
    "stages": ("hms_dist.grid.stages", "Stages", "compare the stages of training, fold by fold, as a table"),
    "search": ("hms_dist.search.study", "Search", "search hyperparameters, in trials that many jobs share"),
    "predict": ("hms_dist.inference", "PredictAny", "predict a shard set or recordings with a trained run"),
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


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb. Exit code 0; 2 for the user's mistakes (one line on standard error); 1 for a failed job."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(_usage())
        return 0
    if words[0] == "--version":
        from hms_dist import __version__

        print(f"hms-dist {__version__}")
        return 0
    try:
        return _call(words[0], words[1:])
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except BaseException as error:
        known = verdict(error)
        if known is None:
            raise
        print(f"hms-dist {words[0]}: {known[1]}", file=sys.stderr)
        return known[0]


def _call(verb: str, words: list[str]) -> int:
    if verb not in VERBS:
        raise UserError(f"unknown verb; one of: {', '.join(VERBS)}")
    module_name, class_name, _ = VERBS[verb]
    from hms_dist.config import load
    from hms_dist.config_names import with_subject
    from hms_dist.run import start_log

    module = importlib.import_module(module_name)
    options = getattr(module, class_name)
    command = load(options, with_subject(options, words), prog=f"hms-dist {verb}")
    start_log(int(os.environ.get("RANK", "0")))
    module.run(command)
    return 0


def _usage() -> str:
    lines = [f"  {verb:<12}{text}" for verb, (_, _, text) in VERBS.items()]
    return "\n".join(
        [
            "usage: hms-dist <verb> [--config FILE.yaml] [--option value ...]",
            "",
            "verbs:",
            *lines,
            "",
            "hms-dist <verb> --help explains every option of a verb with its unit and default.",
            "Training: accelerate launch train.py --config configs/train/demo.yaml --shards SHARDS --out RUN",
        ]
    )
