# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Tutorial: from EEG to a report
#
# This notebook does the whole job once, on simulated EEG, in a few minutes on a CPU: it creates recordings, renders
# them into a shard set, trains a small network, scores it on patients that it has not seen, and writes a report.
# With real data only the first step changes.
#
# The words *row*, *panel*, *canvas* and *fold* are explained in [Concepts](../docs/concepts/index.md).

# %% [markdown]
# ## 1. Recordings
#
# `hms-dist simulate` writes EEGs in the layout of Kaggle's HMS competition: a table of labels, and a Parquet file
# for each recording. In a notebook, `!` runs a command.

# %%
# !hms-dist simulate --out hms --num_recordings 120 --seed 1

# %%
import json

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import hms_dist

labels = pd.read_csv("hms/train.csv")
votes = [column for column in labels if column.endswith("_vote")]
print(len(labels), "rows of", labels["patient_id"].nunique(), "patients")
labels[["eeg_id", "eeg_sub_id", "eeg_label_offset_seconds", *votes]].head(4)

# %% [markdown]
# Each row is a window of 50 seconds. Several experts voted for one of six classes: seizure, four periodic or
# rhythmic patterns (LPD, GPD, LRDA, GRDA), or other. Here are ten seconds of a window in which most of them saw
# LRDA, a rhythm on one side of the head.

# %%
from hms_dist.core.signal_format import CHANNELS

lrda = labels.sort_values("lrda_vote").iloc[-1]
recording = hms_dist.read_recording("hms", eeg_id=int(lrda["eeg_id"]))
first = int((lrda["eeg_label_offset_seconds"] + 20) * 200)  # 200 samples a second
figure, axes = plt.subplots(figsize=(9, 4))
for place, name in enumerate(("Fp1", "C3", "O1", "Fp2", "C4", "O2")):
    signal = np.nan_to_num(recording.eeg[first : first + 2000, CHANNELS.index(name)])
    axes.plot(np.arange(2000) / 200, signal - signal.mean() - 150 * place, linewidth=0.7, color="black")
axes.set_yticks([-150 * place for place in range(6)], ["Fp1", "C3", "O1", "Fp2", "C4", "O2"])
axes.set_xlabel("seconds (channels 150 µV apart)")
plt.show()

# %% [markdown]
# ## 2. A shard set
#
# `hms-dist render` draws the panels of every row, once, and stores them in tar files with an index.

# %%
# !hms-dist render --data hms --out shards --config default

# %%
shards = hms_dist.open_shards("shards")
sample = shards[f"{lrda['eeg_id']}-{lrda['eeg_sub_id']}"]
for name, panel in sample.panels.items():
    print(f"{name:20} {panel.dtype!s:8} {panel.shape}")

# %% [markdown]
# ## 3. A recipe
#
# A recipe is a YAML file of options. This one places two of the panels on a canvas of 96 x 128 pixels and trains
# the smallest network of timm on it, so that a CPU suffices. `hms-dist train --help` lists the options, and
# `hms-dist recipes` the recipes that are installed.

# %%
recipe = """
canvas:
  height: 96
  width: 128
  placements:
    - {panel: eeg_spectrogram, arrangement: stacked, resize: area, top: 0, left: 0, height: 96, width: 64,
       normalise: {class_path: Affine, init_args: {shift: 80, scale: 0.0125}}}
    - {panel: kaggle_spectrogram, arrangement: stacked, resize: area, top: 0, left: 64, height: 96, width: 64,
       normalise: {class_path: Affine, init_args: {shift: 4, scale: 0.1}}}
model: {name: test_efficientnet, weights: none}
num_folds: 4
fold: 0
epochs: 16
global_batch: 16
group_size: 8
optim: {lr: 3.0e-3, weight_decay: 0.05}
schedule: {warmup_share: 0.1, start_factor: 0.1, final_factor: 0.01}
"""
with open("tutorial.yaml", "w") as file:
    file.write(recipe)

# %% [markdown]
# `hms-dist show --canvas` draws what the network will see: the spectrogram of the 50 seconds in the left half of the
# canvas, that of the 10 minutes in the right half, four regions of the head below each other. With `--axes` each is
# drawn for a reader, with times, frequencies and colours; the dashed lines mark the 10 seconds that were labelled.

# %%
canvas = recipe.split("model:")[0].replace("canvas:\n", "")
with open("canvas.yaml", "w") as file:
    file.write("\n".join(line[2:] for line in canvas.splitlines()))
# !hms-dist show --shards shards --key {sample.key} --canvas ./canvas.yaml --axes --out canvas.png

# %%
from IPython.display import Image

Image("canvas.png")

# %% [markdown]
# ## 4. Training
#
# A quarter of the patients, fold 0, is held out for validation. From Python, `hms_dist.train` takes the same
# options as `hms-dist train`; on several GPUs you would write `accelerate launch -m hms_dist train --config
# ./tutorial.yaml ...`. Running this cell again would resume a stopped run, or find that it has finished.

# %%
run = hms_dist.train("./tutorial.yaml", shards="shards", out="run")

# %%
with open(run / "metrics.jsonl") as file:
    metrics = pd.DataFrame(map(json.loads, file))
validation = metrics.dropna(subset=["val_kl"])
figure, axes = plt.subplots(figsize=(7, 3))
axes.plot(validation["epoch"], validation["val_kl"], marker="o", color="teal")
axes.set_xlabel("epoch")
axes.set_ylabel("KL of the held-out patients")
plt.show()

# %% [markdown]
# ## 5. Scores
#
# The score is the Kullback-Leibler divergence (KL) from the votes to the prediction: lower is better. The *constant* is
# the score of the best prediction that is the same for all rows.

# %%
scores = hms_dist.score(run / "predictions.parquet", "shards")
everything = scores["strata"]["all"]
low, high = everything["kl_interval"]
print(f"{everything['num_rows']} rows of patients that the network has not seen")
print(f"KL of the network  {everything['kl']:.2f} (95 % interval over patients: {low:.2f} to {high:.2f})")
print(f"KL of the constant {everything['constant_kl']:.2f}")

# %%
table = pd.read_parquet(run / "predictions.parquet")
classes = list(shards.classes)
truth = shards.index.set_index("key").loc[table["key"], [f"{name}_vote" for name in classes]].to_numpy(float)
confusion = np.zeros((6, 6), int)
np.add.at(confusion, (truth.argmax(1), table[classes].to_numpy().argmax(1)), 1)
pd.DataFrame(confusion, index=pd.Index(classes, name="most votes"), columns=[f"predicted {name}" for name in classes])

# %% [markdown]
# ## 6. Prediction of a recording
#
# A trained run predicts shard sets, folders of recordings, or a single recording of any length, in windows of 50
# seconds.

# %%
model = hms_dist.load_run(run)
model.predict(recording, tta=["flip"], every_s=10.0).round(2)

# %% [markdown]
# ## 7. A report
#
# The report is one HTML file: curves, scores by class and by votes, calibration, and the best and worst rows as
# pictures.

# %%
# !hms-dist report --runs run --shards shards --truth hms/truth.parquet --out report.html

# %% [markdown]
# ## Next
#
# - [Your EDF file](../docs/your_edf.md): import, show and predict a recording of your own.
# - [Fine-tune on your classes](../docs/fine_tune.md).
# - [Own recordings](../docs/own_recordings.md): a whole archive with its labels.
# - [Many GPUs](../docs/many_gpus.md), [Slurm and Kubernetes](../docs/clusters.md).
