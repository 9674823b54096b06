"""Execute a command that receives SIGTERM when its parent dies: `die_with_parent.py PARENT COMMAND [WORD ...]` (Linux).

Started as a file, without site packages, so that it takes only a few milliseconds.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Ask Linux for SIGTERM when the parent dies, then execute the command, unless the parent is dead already."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() == int(sys.argv[1]):
        os.execvp(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
