"""Import timm (and torchvision) also where torchvision's compiled operators cannot load.

torchvision's wheel on the Linux package index is built for CUDA. Beside a CPU-only torch its compiled
half does not load, and since it registers Python kernels for two operators of that half, `import
torchvision` itself then fails: "operator torchvision::nms does not exist". Nothing here calls those
operators (box suppression), so declaring their schemas is enough for the import to go through.
"""

import importlib
import sys
from types import ModuleType

import torch

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
"""The operators of the compiled half that torchvision expects to exist at import."""

_declared: list[torch.library.Library] = []
"""Declarations last as long as the object that made them, so it is kept here."""


def import_torchvision() -> ModuleType:
    """Import torchvision; declare its missing operators first if, and only if, it fails for want of them.

    Safe in any order: an import that failed earlier, here or elsewhere, is begun afresh.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if _declared or "operator torchvision::" not in str(error):
            raise
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for schema in SCHEMAS:
        library.define(schema)  # type: ignore[no-untyped-call]
    _declared.append(library)
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]  # the half-imported remains
    return importlib.import_module("torchvision")


def import_timm() -> ModuleType:
    """Import timm, which imports torchvision. All of this package gets timm from here."""
    import_torchvision()
    return importlib.import_module("timm")
