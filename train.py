"""Train one model. `accelerate launch train.py --config configs/train/x.yaml --shards SHARDS --out RUN`."""

import os
import sys

from hms_dist.config import load
from hms_dist.errors import UserError


def main() -> int:
    """Parse, train, close. Exit code 2 for the user's mistakes, told in one line by the first rank."""
    try:
        from hms_dist.train.loop import run
        from hms_dist.train.settings import TrainConfig

        run(load(TrainConfig, sys.argv[1:], prog="train.py"))
    except UserError as error:
        if os.environ.get("RANK", "0") == "0":
            print(f"train.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
