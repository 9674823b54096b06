# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Fine-tune on your classes
#
# A lab with few labelled recordings starts from a run that was trained on many, even if its classes differ. This
# notebook does so on simulated EEG: a run on the six classes of HMS is fine-tuned on four classes of a lab, and
# compared with a run that starts from random weights. It takes some minutes on a CPU.

# %% [markdown]
# ## Your classes
#
# A data set describes its classes in `dataset.yaml`. `labels` assigns the text of an annotation to a class; here it
# assigns the six patterns of the simulator to the lab's four classes.
# [All keys of this file](../docs/data_sets.md)

# %%
description = """
name: lab
classes: [seizure, periodic, rhythmic, background]
target: shares
labels:
  seizure: seizure
  lpd: periodic
  gpd: periodic
  lrda: rhythmic
  grda: rhythmic
  other: background
"""
with open("lab.yaml", "w") as file:
    file.write(description)

# %% [markdown]
# ## Two data sets
#
# Eighty recordings with the classes of HMS, and forty of the lab.

# %%
# !hms-dist simulate --out hms --num_recordings 80 --seed 1
# !hms-dist render --data hms --out shards/hms --config default
# !hms-dist simulate --out lab --num_recordings 40 --seed 2 --dataset lab.yaml
# !hms-dist render --data lab --out shards/lab --config default

# %% [markdown]
# ## The run on many recordings
#
# The canvas and the network are those of the [tutorial](../docs/tutorial.md).

# %%
import hms_dist

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
epochs: 12
global_batch: 16
group_size: 8
optim: {lr: 3.0e-3, weight_decay: 0.05}
schedule: {warmup_share: 0.1, start_factor: 0.1, final_factor: 0.01}
"""
with open("small.yaml", "w") as file:
    file.write(recipe)
base = hms_dist.train("./small.yaml", shards="shards/hms", out="runs/base")

# %% [markdown]
# ## Fine-tuning
#
# `init` names the run whose weights are the start. The backbone is kept. Classes with the same name, here `seizure`,
# keep their row of the classifier; the others are initialised at random. The learning rate is a third, because the
# weights need small corrections only.

# %%
short = {"epochs": 8}
tuned = hms_dist.train("./small.yaml", shards="shards/lab", out="runs/tuned", init=base, **short, **{"optim.lr": 1e-3})
fresh = hms_dist.train("./small.yaml", shards="shards/lab", out="runs/fresh", **short)

# %%
for name, run in {"fine-tuned": tuned, "from random weights": fresh}.items():
    scores = hms_dist.score(run / "predictions.parquet", "shards/lab")["strata"]["all"]
    print(f"{name:20} KL {scores['kl']:.2f}   constant {scores['constant_kl']:.2f}   {scores['num_rows']} rows")

# %% [markdown]
# Lower is better. The same from the command line:
#
# ```sh
# hms-dist train --config ./small.yaml --shards shards/hms --out runs/base
# hms-dist train --config ./small.yaml --init runs/base --shards shards/lab --out runs/tuned
# ```
#
# The recipe `fine_tune` has settings for a run on real data; `scripts/fine_tuning_proof.sh` measures its gain.
