"""Two real ranks write down which rows they train on: step by step they are the plan's, each once."""

import json

import numpy as np
import pytest

from hms_dist.config.load import load
from hms_dist.train.data.run_data import epoch_rows, open_run_data
from hms_dist.train.settings import TrainConfig

AUDITED = """
import json, os, sys
from hms_dist.config.load import load
from hms_dist.train.loop import run
from hms_dist.train.ranks.step_result import NonFiniteLossGuard
from hms_dist.train.settings import TrainConfig

real = NonFiniteLossGuard.add
def add(self, outcome):
    with open(f"{sys.argv[1]}/rank{os.environ.get('RANK', '0')}.jsonl", "a") as file:
        file.write(json.dumps({"step": outcome.overall, "rows": outcome.rows.tolist()}) + "\\n")
    real(self, outcome)
NonFiniteLossGuard.add = add
run(load(TrainConfig, sys.argv[2:], prog="train.py"))
"""


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["--locality.block_rows", "4", "--locality.num_lanes", "2"]])
def test_the_union_of_the_ranks_rows_is_the_plan(ranks, small_file, shard_set, tmp_path, more):
    script = tmp_path / "audited.py"
    script.write_text(AUDITED)
    words = ["--config", str(small_file), "--shards", str(shard_set), "--out", str(tmp_path / "run"), *more]
    ranks(2, script, tmp_path, *words)
    seen: dict[int, list[list[list[int]]]] = {}
    for rank in (0, 1):
        for line in (tmp_path / f"rank{rank}.jsonl").read_text().splitlines():
            entry = json.loads(line)
            seen.setdefault(entry["step"], []).append(entry["rows"])
    config = load(TrainConfig, words)
    data = open_run_data(config)
    plans = [epoch_rows(config, data, epoch) for epoch in range(config.epochs)]
    assert sorted(seen) == list(range(sum(data.steps_of)))
    assert all(len(ranks) == 2 for ranks in seen.values())
    found = [np.concatenate([np.ravel(rows) for rows in seen[step]]) for step in sorted(seen)]
    np.testing.assert_array_equal(np.concatenate(found), np.concatenate(plans))
    for plan in plans:
        assert len(set(plan.tolist())) == len(plan)
        assert set(plan.tolist()) <= set(data.train_rows.tolist())
