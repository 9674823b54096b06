"""Environment variables that would change a run against its configuration: rejected, or overridden with a warning.

accelerate reads dozens of variables, which its own configuration or another project may have set; some of NVIDIA's and
oneDNN's variables change the arithmetic below torch.
"""

import os
from collections.abc import Mapping

from hms_dist.core.errors import UserError

MIXED_PRECISION = {"bf16": "bf16", "fp16": "fp16", "tf32": "no", "float32": "no", "float64": "no"}
"""Our names of precisions -> accelerate's names."""
ENGINES = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "accelerate's parallelism configuration",
    "ACCELERATE_USE_SAGEMAKER": "SageMaker's launcher",
}
"""Variable that selects another engine of distributed training -> name of the engine."""
MPI_SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
"""Variables with the number of processes of an MPI job, which accelerate interprets as ranks."""
FPMATH_MODES = ("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE")
_TRUE = ("1", "true", "yes", "on", "t", "y")


def check_variables(precision: str, variables: Mapping[str, str] | None = None) -> None:
    """Raise UserError for a variable whose setting training and prediction do not support or do not control."""
    found = os.environ if variables is None else variables
    for name, engine in ENGINES.items():
        if found.get(name, "").lower() in _TRUE:
            raise _refusal(name, found, f"{engine} is not supported: every rank holds the whole model", "unset it")
    if found.get("ACCELERATE_MIXED_PRECISION", "").lower() == "fp8":
        raise _refusal("ACCELERATE_MIXED_PRECISION", found, "fp8 is not supported", "unset it and choose precision")
    if found.get("ACCELERATE_TORCH_DEVICE"):
        advice = "unset it, and choose devices by CUDA_VISIBLE_DEVICES or ACCELERATE_USE_CPU=1"
        raise _refusal("ACCELERATE_TORCH_DEVICE", found, "each rank takes a device of its own", advice)
    for name in MPI_SIZES:
        if "WORLD_SIZE" not in found and found.get(name, "1") not in ("", "0", "1"):
            advice = "start the ranks by torchrun or accelerate launch"
            raise _refusal(name, found, "an MPI job without a launcher of ranks", advice)
    if found.get("NVIDIA_TF32_OVERRIDE", "") == ("0" if precision == "tf32" else "1"):
        raise _refusal("NVIDIA_TF32_OVERRIDE", found, f"contradicts precision {precision}", "unset it")
    for name in FPMATH_MODES:
        if found.get(name, "strict").lower() not in ("strict", ""):
            raise _refusal(name, found, "rounds the products of float32 on CPUs", "unset it and choose precision")


def overruled(precision: str, variables: Mapping[str, str] | None = None) -> list[str]:
    """Return a warning for each variable that has no effect, because the configuration decides."""
    found = os.environ if variables is None else variables
    decided = (
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", ("1",), "global_batch and group_size decide"),
        ("ACCELERATE_GRADIENT_CLIPPING", ("none", "auto"), "optim.max_grad_norm decides"),
        ("ACCELERATE_DYNAMO_BACKEND", ("no",), "compile_mode decides"),
        ("ACCELERATE_MIXED_PRECISION", ("no", MIXED_PRECISION[precision]), f"precision decides, and is {precision}"),
    )
    return [
        f"{name}={found[name]} has no effect: {what}"
        for name, neutral, what in decided
        if found.get(name, "").lower() not in ("", *neutral)
    ]


def _refusal(name: str, found: Mapping[str, str], why: str, advice: str) -> UserError:
    return UserError(f"environment variable {name}={found[name]}: {why}; {advice}")
