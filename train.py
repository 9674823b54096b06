"""Train one model. `accelerate launch train.py --config configs/train/x.yaml --shards SHARDS --out RUN`."""

import os
import sys

from hms_dist.config.load import load
from hms_dist.core.errors import UserError, exit_status


def main() -> int:
    """Parse, train, close. Exit code 2 for the user's mistakes, 1 for a failed run; one line for both."""
    try:
        if len(sys.argv) == 1:
            raise UserError("no recipe; give one, such as --config configs/train/demo.yaml, with --shards and --out")
        from hms_dist.train.loop import run
        from hms_dist.train.settings import TrainConfig

        run(load(TrainConfig, sys.argv[1:], prog="train.py"))
    except BaseException as error:
        status = exit_status(error)
        if status is None:
            raise
        if os.environ.get("RANK", "0") == "0" or status[1].startswith("rank "):
            print(f"train.py: {status[1]}", file=sys.stderr)
        return status[0]
    return 0


if __name__ == "__main__":
    sys.exit(main())
