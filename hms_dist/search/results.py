"""Results of a search: the best trial as a training configuration, and a table of all trials."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from hms_dist.core.files import atomic
from hms_dist.results.metric_kinds import Metric
from hms_dist.search.space import Parameter, with_values

BEST_NAME = "best.yaml"
TABLE_NAME = "trials.csv"


def write_table(path: Path, studies: list[Any], metric: Metric) -> None:
    """Write one row per trial: batch, trial, state, validation KL or log loss (empty if it did not finish), epochs,
    parameters."""
    rows = [
        {
            "batch": batch, "trial": trial.number, "state": trial.state.name.lower(), metric.monitor: trial.value,
            "epochs": len(trial.intermediate_values), **trial.params,
        }
        for batch, study in enumerate(studies)
        for trial in study.get_trials()
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    # Optuna assigns the last value to pruned trials.
    table.loc[table["state"] != "complete", metric.monitor] = float("nan")
    with atomic(path, "w") as file:
        table.to_csv(file, index=False)


def write_best(
    path: Path, studies: list[Any], config: Mapping[str, Any], space: Mapping[str, Parameter], metric: Metric
) -> bool:
    """Write the configuration of the trial with the lowest value, for hms-dist train --config; False without a finished
    trial."""
    ended = [
        (trial.value, batch, trial.number, trial.params)
        for batch, study in enumerate(studies)
        for trial in study.get_trials()
        if trial.state.name == "COMPLETE"
    ]
    if not ended:
        return False
    value, batch, number, values = min(ended, key=lambda trial: trial[:3])
    found = f"mean best validation {metric.title} {value:.4f}"
    header = f"# Trial {number} of batch {batch}, the best of its search: {found}.\n"
    with atomic(path, "w") as file:
        file.write(header + yaml.safe_dump(with_values(config, space, values), sort_keys=False))
    return True
