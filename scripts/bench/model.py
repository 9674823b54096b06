"""TinyViT-21M-512 at 640 x 1920 on one GPU: this project's blocks against timm's, compiled and not.

python scripts/bench/model.py --json model.json runs everything; most of the time is torch.compile's.
--parts chooses: step (training step), equal (outputs, gradients, loss curves), predict (with the mirror image),
efficientnet (B0 at 512 x 512). Random data, bf16 autocast, AdamW in one kernel, channels_last; medians.
"""

import argparse
import gc
import json
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from hms_dist.model.loss import kl_rows
from hms_dist.model.tiny_vit import fast_blocks

HEIGHT, WIDTH, NUM_CLASSES = 640, 1920, 6
NUM_WARM, NUM_TIMED = 3, 8
SYSTEMS = {"timm eager": (False, False), "timm + compile": (False, True), "hms_dist + compile": (True, True)}
"""Name -> own blocks, compiled."""
Row = dict[str, Any]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    arguments.add_argument("--batches", nargs="+", type=int, default=[16, 32], help="images of a training step")
    arguments.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    arguments.add_argument("--json", type=Path, help="write all figures here too")
    options = arguments.parse_args()
    rows: list[Row] = []
    for part in options.parts:
        for row in PARTS[part](options):
            rows.append({"part": part, **row})
            print(" | ".join(f"{name} {_text(value)}" for name, value in rows[-1].items()), flush=True)
            gc.collect()
            torch.cuda.empty_cache()
    if options.json:
        facts = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "timm": timm.__version__}
        options.json.write_text(json.dumps({**facts, "rows": rows}, indent=1))


def training_steps(options: argparse.Namespace) -> Iterator[Row]:
    """Each system at each batch size."""
    for name in options.systems:
        for batch in options.batches:
            yield {"system": name, "batch": batch, **timed(stepper(model_of(name), *data(batch)), batch)}
            torch.compiler.reset()


def predictions(options: argparse.Namespace) -> Iterator[Row]:
    """Probabilities, means of an image and its mirror image."""
    for name in options.systems:
        model = model_of(name).eval()
        images, _ = data(16)

        @torch.no_grad()
        def predict(model: nn.Module = model, images: Tensor = images) -> None:
            with torch.autocast("cuda", torch.bfloat16):
                torch.stack([model(images), model(images.flip(-1))]).float().softmax(-1).mean(0)

        yield {"system": name, "batch": 16, **timed(predict, 16)}
        torch.compiler.reset()


def efficientnet(options: argparse.Namespace) -> Iterator[Row]:
    """EfficientNet-B0's training step, as timm has it."""
    for name in ("eager", "compile"):
        model = on_gpu(timm.create_model("tf_efficientnet_b0", in_chans=1, num_classes=NUM_CLASSES))
        if name == "compile":
            model.compile()
        yield {"system": f"timm {name}", "batch": 128, **timed(stepper(model, *data(128, 512, 512)), 128)}
        torch.compiler.reset()


def equalities(options: argparse.Namespace) -> Iterator[Row]:
    """Relative distances from timm in float32 proper, without drop-path; then two loss curves with it."""
    torch.backends.cudnn.allow_tf32 = False
    images, targets = data(2)
    exact = gradients(model_of("timm eager", drop_path_rate=0.0), images, targets)
    for own in (True, False):
        for dtype in (torch.float32, torch.bfloat16):
            if own or dtype == torch.bfloat16:
                found = gradients(model_of("timm eager", own=own, drop_path_rate=0.0), images, targets, dtype)
                whole = [torch.cat([tensor.flatten() for tensor in tensors[1:]]) for tensors in (found, exact)]
                yield {
                    "system": "hms_dist" if own else "timm",
                    "type": str(dtype).removeprefix("torch."),
                    "logits": distance(found[0], exact[0]),
                    "gradients": distance(*whole),
                    "worst parameter": max(map(distance, found[1:], exact[1:])),
                }
    curves = [loss_curve(own) for own in (False, True)]
    for step in (0, 9, 24, 49):
        yield {"step": step + 1, "timm loss": curves[0][step], "hms_dist loss": curves[1][step]}


PARTS: dict[str, Callable[[argparse.Namespace], Iterator[Row]]] = {
    "step": training_steps,
    "equal": equalities,
    "predict": predictions,
    "efficientnet": efficientnet,
}


def model_of(name: str, *, own: bool | None = None, **options: float) -> nn.Module:
    """The model of a system, with the same weights for all."""
    torch.manual_seed(0)
    model = timm.create_model("tiny_vit_21m_512", in_chans=1, num_classes=NUM_CLASSES, **options)
    is_own, compiled = SYSTEMS[name]
    if is_own if own is None else own:
        fast_blocks(model)
    if compiled:
        model.compile()
    return on_gpu(model)


def on_gpu(model: nn.Module) -> nn.Module:
    return model.cuda().to(memory_format=torch.channels_last).train()


def data(batch: int, height: int = HEIGHT, width: int = WIDTH) -> tuple[Tensor, Tensor]:
    """Random images and targets, always the same."""
    generator = torch.Generator("cuda").manual_seed(1)
    images = torch.rand(batch, 1, height, width, device="cuda", generator=generator)
    targets = torch.rand(batch, NUM_CLASSES, device="cuda", generator=generator).mul(3).softmax(-1)
    return images.contiguous(memory_format=torch.channels_last), targets


def stepper(model: nn.Module, images: Tensor, targets: Tensor) -> Callable[[], Tensor]:
    """One optimiser step, which gives its loss."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, fused=True)

    def step() -> Tensor:
        with torch.autocast("cuda", torch.bfloat16):
            logits = model(images)
        loss = kl_rows(logits, targets).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step


def timed(work: Callable[[], object], batch: int) -> Row:
    """Milliseconds, images a second, and the most memory that tensors took."""
    torch.cuda.reset_peak_memory_stats()
    taken = []
    for _ in range(NUM_WARM + NUM_TIMED):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        work()
        end.record()
        torch.cuda.synchronize()
        taken.append(start.elapsed_time(end))
    milliseconds = statistics.median(taken[NUM_WARM:])
    memory_gib = torch.cuda.max_memory_allocated() / 2**30
    return {"ms": milliseconds, "images/s": 1000 * batch / milliseconds, "GiB": memory_gib}


def gradients(
    model: nn.Module, images: Tensor, targets: Tensor, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, ...]:
    """Logits, then the gradient of each parameter; without biases that a batch norm takes away again, of MLPs."""
    with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
        logits = model(images)
    with_effect = [value for name, value in model.named_parameters() if not name.endswith("mlp.fc2.bias")]
    return logits.detach(), *torch.autograd.grad(kl_rows(logits, targets).sum(), with_effect)


def loss_curve(own: bool) -> list[float]:
    """Losses of 50 steps on four images."""
    model = model_of("timm eager", own=own)
    torch.manual_seed(2)
    step = stepper(model, *data(4))
    return [step().item() for _ in range(50)]


def distance(found: Tensor, wanted: Tensor) -> float:
    return ((found.double() - wanted.double()).norm() / wanted.double().norm()).item()


def _text(value: object) -> str:
    return (
        f"{value:.3g}"
        if isinstance(value, float) and value < 100
        else f"{value:.0f}"
        if isinstance(value, float)
        else str(value)
    )


if __name__ == "__main__":
    main()
