"""Train one model, as `hms-dist train` does: `accelerate launch train.py --config NAME --shards SHARDS --out RUN`."""

import sys

from hms_dist.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
