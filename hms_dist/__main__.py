"""`python -m hms_dist <command>`, the same as `hms-dist <command>`; the form for launchers such as torchrun."""

import sys

from hms_dist.cli import main

if __name__ == "__main__":
    sys.exit(main())
