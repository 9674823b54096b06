"""The format of every recording after reading: channels, sampling rate, axes of the 10-minute spectrogram."""

RATE_HZ = 200
"""Sampling rate of every EEG."""
WINDOW_SAMPLES = 50 * RATE_HZ
"""Samples in the 50-second window of a label row."""
CHANNELS = (
    "Fp1", "F3", "C3", "P3", "F7", "T3", "T5", "O1", "Fz", "Cz",
    "Pz", "Fp2", "F4", "C4", "P4", "F8", "T4", "T6", "O2", "EKG",
)  # fmt: skip
"""Channels of `Recording.eeg`, in the order of Kaggle's files."""
REGIONS = ("LL", "RL", "LP", "RP")
"""Regions of the 10-minute spectrogram in the order of Kaggle's files: left/right lateral/parasagittal."""
NUM_FREQUENCIES = 100
"""Frequencies of each region: 0.59 to 19.92 Hz."""
ROW_S = 2.0
"""Seconds between the rows of a spectrogram."""
FREQUENCIES_HZ = tuple(int(bin_ * 100 * RATE_HZ / 1024 + 0.5) / 100 for bin_ in range(3, 3 + NUM_FREQUENCIES))
"""Frequencies as in Kaggle's column names: bins 3 to 102 of a 1024-point FFT, two decimals."""
KAGGLE_COLUMNS = tuple(f"{region}_{hertz:g}" for region in REGIONS for hertz in FREQUENCIES_HZ)
"""Kaggle's names of the 400 power columns, in the order of `Recording.spectrogram`."""
