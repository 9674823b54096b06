"""Make torchvision from the package index importable with a CPU-only torch; part of `make setup`.

The index's Linux wheel of torchvision is built for CUDA. With a CPU-only torch its compiled operators cannot load, and
`import torchvision` (and so timm, and `accelerate launch`) fails because two operators are not declared. Nothing here
uses those operators. If the import works, this does nothing; if it fails for that reason, it installs a small import
hook into the virtual environment that declares them.
"""

import argparse
import subprocess
import sys
import sysconfig
from pathlib import Path

HOOK = '''"""Declares operators of torchvision that a CPU-only torch cannot load (scripts/patch_torchvision.py)."""

import sys


class _Declare:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(_Declare)
            import torch

            library = torch.library.Library("torchvision", "FRAGMENT")
            for operator in ("nms", "qnms"):
                library.define(operator + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            _Declare.library = library


sys.meta_path.insert(0, _Declare)
'''


def parser() -> argparse.ArgumentParser:
    return argparse.ArgumentParser(description=__doc__.splitlines()[0])


def main() -> int:
    parser().parse_args()
    attempt = [sys.executable, "-c", "import torchvision"]
    found = subprocess.run(attempt, capture_output=True, text=True, check=False)
    if found.returncode == 0:
        return 0
    if "operator torchvision::" not in found.stderr:
        print(found.stderr, file=sys.stderr)
        return 1
    folder = Path(sysconfig.get_path("purelib"))
    (folder / "torchvision_on_cpu_torch.py").write_text(HOOK)
    (folder / "torchvision_on_cpu_torch.pth").write_text("import torchvision_on_cpu_torch\n")
    return subprocess.run(attempt, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
