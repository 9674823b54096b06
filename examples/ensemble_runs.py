"""Pool the predictions of several runs and score them: `python examples/ensemble_runs.py SHARDS RUN RUN ...`."""

import argparse

import hms_dist


def main(shards: str, runs: list[str]) -> float:
    """Print the KL of each run on a shard set, and that of the mean of all runs; return the latter, in nats."""
    tables = [hms_dist.load_run(run).predict(shards, tta=["flip"]) for run in runs]
    for run, table in zip(runs, tables, strict=True):
        print(f"{run}: KL {hms_dist.score(table, shards, rows='all', num_draws=0)['kl']:.4f}")
    scores = hms_dist.score(hms_dist.ensemble(tables), shards, rows="all", num_draws=0)
    print(f"mean of {len(runs)} runs: KL {scores['kl']:.4f}")
    return float(scores["kl"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shards")
    parser.add_argument("runs", nargs="+")
    try:
        main(**vars(parser.parse_args()))
    except hms_dist.UserError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
