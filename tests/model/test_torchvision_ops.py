"""timm imports whatever came before it, with or without torchvision's compiled half."""

import subprocess
import sys

PROGRAM = """
import accelerate, webdataset
try:
    import torchvision
    whole = True
except RuntimeError:
    whole = False
from hms_dist.model import torchvision_ops
timm = torchvision_ops.import_timm()
assert torchvision_ops.import_timm() is timm
assert bool(torchvision_ops._declared) != whole, "declared exactly when the compiled half is absent"
import torch, torchvision
from torchvision.transforms.v2 import functional
image = functional.resize(torch.rand(1, 8, 8), [4, 6], antialias=True)
assert image.shape == (1, 4, 6)
assert timm.create_model("resnet18", in_chans=1).num_classes == 1000
print("imported")
"""


def test_timm_imports_after_a_failed_import_of_torchvision() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "imported", done.stderr
