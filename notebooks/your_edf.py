# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Your EDF file
#
# This notebook reads an EDF file, looks at it, imports it with its annotations, and predicts it with a trained run. It
# takes about a minute. It needs the extra `edf` (`pip install 'hms-dist[edf]'`).
#
# With a file of your own, skip the first section and write its name instead of `night.edf`.

# %% [markdown]
# ## A file to work with
#
# We write a simulated EEG as an EDF file, with channel names as amplifiers write them, and with one annotation.

# %%
# !hms-dist simulate --out hms --num_recordings 12 --seed 3

# %%
import edfio
import numpy as np
import pandas as pd

import hms_dist
from hms_dist.core.signal_format import CHANNELS

labels = pd.read_csv("hms/train.csv")
eeg_id = int(labels.sort_values("grda_vote").iloc[-1]["eeg_id"])
eeg = np.nan_to_num(hms_dist.read_recording("hms", eeg_id=eeg_id).eeg)
eeg = eeg[: len(eeg) // 200 * 200].clip(-3000, 3000)  # whole seconds
signals = [
    edfio.EdfSignal(eeg[:, place].astype(float), 200, label=f"EEG {name.upper()}-REF", physical_dimension="uV")
    for place, name in enumerate(CHANNELS)
]
edfio.Edf(signals, annotations=[edfio.EdfAnnotation(20, 10, "GRDA")]).write("night.edf")
print(f"night.edf: {len(eeg) / 200:.0f} s, channels such as {signals[0].label!r}")

# %% [markdown]
# ## Look at it
#
# `hms-dist show` draws the default panels of the 50 seconds around a time. From Python, `read_recording` returns the
# signals: 20 channels at 200 Hz in microvolts, whatever the file has.

# %%
# !hms-dist show --recording night.edf --at 25 --out window.png

# %%
from IPython.display import Image

Image("window.png", width=900)

# %%
recording = hms_dist.read_recording("night.edf")
print(recording.eeg.shape, recording.eeg.dtype)

# %% [markdown]
# ## Import it
#
# `hms-dist import` converts a folder of recordings to Kaggle's layout. Annotations become label rows: the text of an
# annotation is looked up in `dataset.yaml`, or, without this file, among the six classes of HMS. `--patient file`
# takes each file as a patient of its own; more about labels and patients is in
# [Own recordings](../docs/own_recordings.md).

# %%
# !mkdir lab && cp night.edf lab/
# !hms-dist import --data lab --out lab_hms --patient file

# %%
pd.read_csv("lab_hms/train.csv").T

# %% [markdown]
# The result holds numbers instead of names and dates. `lab_hms/import_report.html` shows what was found in every file.

# %% [markdown]
# ## Predict it
#
# Any run predicts a recording in windows of 50 seconds. To have a run, we train the smallest network for two epochs on
# the twelve simulated recordings. Its predictions are meaningless; those of a real run are not.

# %%
# !hms-dist render --data hms --out shards --config default

# %%
config = {
    "canvas": {
        "height": 64,
        "width": 64,
        "placements": [
            {"panel": "traces", "flipped_panel": "traces_flipped", "resize": "area", "top": 0, "left": 0,
             "height": 64, "width": 64}
        ],
    },
    "model": {"name": "test_efficientnet", "weights": "none"},
    "num_folds": 2, "epochs": 2, "global_batch": 8, "group_size": 8,
}  # fmt: skip
run = hms_dist.train(config, shards="shards", out="run")
model = hms_dist.load_run(run)
model.predict(recording, tta=["flip"], every_s=10.0).round(2)

# %% [markdown]
# Each row is a window, and `time_s` is its middle. The same from the command line:
# `hms-dist predict --run run --recording night.edf --out night.parquet`.
