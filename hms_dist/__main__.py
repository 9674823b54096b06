"""`python -m hms_dist <verb>`, the same as `hms-dist <verb>`; what launchers such as torchrun start."""

import sys

from hms_dist.cli import main

if __name__ == "__main__":
    sys.exit(main())
