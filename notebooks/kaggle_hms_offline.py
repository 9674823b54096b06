# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # HMS submission without internet
#
# Attach two inputs: the competition *HMS - Harmful Brain Activity Classification*, and the data set that
# `scripts/kaggle_bundle.sh` made. Choose GPU T4 x2 (or none: EfficientNet-B0 runs on the CPU in time), switch the
# internet off, and submit. The notebook checks the bundle, installs it, renders the test recordings once for each
# render recipe of the runs, predicts with every run, and writes the mean as `submission.csv`.

# %%
import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

INPUT = Path(os.environ.get("HMS_INPUT", "/kaggle/input"))
WORKING = Path(os.environ.get("HMS_WORKING", "/kaggle/working"))
SCRATCH = Path(os.environ.get("HMS_SCRATCH", "/kaggle/temp"))  # rendered shards: not part of the notebook's output
MIRRORS = ["flip"]  # [] halves the time of prediction


def only(pattern: str) -> Path:
    """Return the folder of the one input that holds `pattern`."""
    found = sorted({path.parent for path in INPUT.rglob(pattern)})
    assert len(found) == 1, f"expected one input with {pattern}, found {len(found)}: {found}"
    return found[0]


bundle, recordings = only("SHA256SUMS"), only("test.csv")
WORKING.mkdir(parents=True, exist_ok=True)
SCRATCH.mkdir(parents=True, exist_ok=True)
print(bundle, recordings, f"{len(list((recordings / 'test_eegs').iterdir()))} EEGs", sep="\n")

# %% [markdown]
# Every file of the bundle as `kaggle_bundle.sh` wrote it.

# %%
for line in (bundle / "SHA256SUMS").read_text().splitlines():
    expected, name = line.split(maxsplit=1)
    found = hashlib.sha256((bundle / name).read_bytes()).hexdigest()
    assert found == expected, f"{name}: damaged; upload the bundle again"

# %% [markdown]
# Install what the image lacks: all wheels of the bundle and nothing else. If the image has other versions than the
# bundle was made for, the check below names them: bundle again with `--image`, see docs/kaggle.md.

# %%
wheels = sorted(map(str, (bundle / "wheels").glob("*.whl")))
subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", *wheels], check=True)

# %%
from importlib import metadata

from packaging.requirements import Requirement

for requirement in map(Requirement, metadata.requires("hms-dist")):
    if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
        found = metadata.version(requirement.name)
        assert requirement.specifier.contains(found, prereleases=True), f"{requirement}: the image has {found}"

# %%
import torch

num_cores, num_gpus = len(os.sched_getaffinity(0)), torch.cuda.device_count()
LAUNCHER = ["torch.distributed.run", "--standalone", "--nproc_per_node", str(num_gpus), "-m", "--"]


def hms_dist(*words: object, ranks: bool = False) -> None:
    """Run a command of hms_dist; with `ranks`, one process a GPU."""
    threads = str(1 if ranks or "render" in words else num_cores)
    launcher = LAUNCHER if ranks and num_gpus > 1 else []
    begun = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", *launcher, "hms_dist", *map(str, words)],
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": threads},
    )
    print(f"{words[0]}: {time.monotonic() - begun:.0f} s")


# %% [markdown]
# Render once for each recipe: runs with the same `render.yaml` share a shard set.

# %%
runs = sorted((bundle / "runs").iterdir())
shards = {}
for run in runs:
    recipe = (run / "render.yaml").read_text()
    if recipe not in shards:
        shards[recipe] = SCRATCH / f"shards-{len(shards)}"
        hms_dist(
            "render", "--config", run / "render.yaml", "--data", recordings, "--split", "test", "--out", shards[recipe],
            "--workers", num_cores,
        )  # fmt: skip

# %%
tables = []
for run in runs:
    tables.append(SCRATCH / f"{run.name}.parquet")
    tta = ["--tta", *MIRRORS] if MIRRORS else []
    used = shards[(run / "render.yaml").read_text()]
    hms_dist("predict", "--run", run, "--shards", used, "--out", tables[-1], *tta, ranks=num_gpus > 0)

# %% [markdown]
# The mean of all runs. Other means, fitted weights and stacks: docs/ensembles.md.

# %%
hms_dist("ensemble", "--predictions", *tables, "--out", WORKING / "submission.csv", "--method", "mean")

# %%
import pandas as pd

submission = pd.read_csv(WORKING / "submission.csv")
asked = pd.read_csv(recordings / "test.csv")
assert sorted(submission["eeg_id"]) == sorted(asked["eeg_id"])
assert (submission.drop(columns="eeg_id").sum(axis=1) - 1).abs().max() < 1e-5
print(submission.head())
