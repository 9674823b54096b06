"""Rows to shards: every row once, recordings together, patients mixed, independent of the table's order."""

import pandas as pd

from hms_dist.rendering.shard_plan import plan_shards


def table(rng, num_spectrograms=300):
    rows = []
    for spectrogram in range(num_spectrograms):
        for eeg in range(rng.integers(1, 4)):
            for sub in range(rng.integers(1, 12)):
                rows.append((spectrogram + 5000, spectrogram * 10 + eeg, sub))
    return pd.DataFrame(rows, columns=["spectrogram_id", "eeg_id", "eeg_sub_id"])


def test_every_row_once_in_full_shards(rng):
    frame = table(rng)
    plans = plan_shards(frame, 64, seed=int(rng.integers(2**32)))
    assert sorted(row for plan in plans for row in plan.rows) == list(range(len(frame)))
    assert [len(plan.rows) for plan in plans[:-1]] == [64] * (len(plans) - 1)
    assert all(sorted(plan.rows) == sorted(plan.tar_order) for plan in plans)


def test_the_order_of_the_table_does_not_matter(rng):
    frame = table(rng)
    seed, other_seed = rng.choice(2**32, 2, replace=False).tolist()
    shuffled = frame.sample(frac=1, random_state=rng).reset_index(drop=True)
    keys = [list(map(tuple, frame.iloc[list(p.tar_order)].to_numpy())) for p in plan_shards(frame, 50, seed)]
    other = [list(map(tuple, shuffled.iloc[list(p.tar_order)].to_numpy())) for p in plan_shards(shuffled, 50, seed)]
    assert keys == other
    assert keys != [
        list(map(tuple, frame.iloc[list(p.tar_order)].to_numpy())) for p in plan_shards(frame, 50, other_seed)
    ]


def test_each_file_is_opened_about_once(rng):
    frame = table(rng)
    plans = plan_shards(frame, 64, seed=int(rng.integers(2**32)))
    for column in ("eeg_id", "spectrogram_id"):
        opened = 0
        for plan in plans:
            values = frame[column].iloc[list(plan.rows)].to_numpy()
            opened += 1 + int((values[1:] != values[:-1]).sum())
        assert opened <= frame[column].nunique() + len(plans)


def test_neighbours_in_a_tar_are_strangers(rng):
    frame = table(rng, 600)
    same = total = 0
    for plan in plan_shards(frame, 256, seed=int(rng.integers(2**32))):
        ids = frame["eeg_id"].iloc[list(plan.tar_order)].to_numpy()
        same += int((ids[1:] == ids[:-1]).sum())
        total += len(ids) - 1
    assert same / total < 0.15
