"""Registration of custom torch operators: opaque to the compiler, with little overhead per call.

`torch.library.custom_op` would do the same with six times the overhead; a step of TinyViT makes a hundred calls.
"""

from collections.abc import Callable
from typing import Any

import torch

_LIBRARY = torch.library.Library("hms_dist", "FRAGMENT")  # type: ignore[no-untyped-call]


def operator(
    name: str,
    implementation: Callable[..., Any],
    shapes: Callable[..., Any],
    backward: Callable[..., Any] | None = None,
    keep: Callable[..., None] | None = None,
) -> None:
    """Register torch.ops.hms_dist.<name>.

    `implementation`: a function with annotations that changes none of its arguments and returns new tensors. `shapes`:
    takes the same arguments and returns empty tensors of the right shapes and types. `backward` (context, *gradients)
    -> gradient of each argument, from what `keep` (context, inputs, output) saved.
    """
    schema = torch.library.infer_schema(implementation, mutates_args=())
    tags = (torch.Tag.pt2_compliant_tag, torch.Tag.needs_exact_strides)  # tensors have the strides that were traced
    _LIBRARY.define(f"{name}{schema}", tags=tags)  # type: ignore[no-untyped-call]
    _LIBRARY.impl(name, implementation, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
    full_name = f"hms_dist::{name}"
    torch.library.register_fake(full_name, shapes, lib=_LIBRARY)
    if backward is not None:
        torch.library.register_autograd(full_name, backward, setup_context=keep, lib=_LIBRARY)
