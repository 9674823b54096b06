"""TinyViT-21M-512 at 640 x 1920 on one GPU: this project's blocks compared with timm's, compiled and eager.

python scripts/bench/model.py --json model.json runs everything; most of the time is torch.compile's.
--parts chooses: step (training step), equal (outputs, gradients, loss curves), predict (with the mirror image),
efficientnet (B0 at 512 x 512). Random data, bf16 autocast, AdamW in one kernel, channels_last; medians of rounds of
steps that follow one another without a pause. At the end: targets and results. --device cpu with a
small --model and --size only shows that it runs.
"""

import argparse
import gc
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import version
from math import isnan, nan
from pathlib import Path

import torch
from bare_steps import (
    CURVE_STEPS,
    HEIGHT,
    NUM_CLASSES,
    NUM_ROUNDS,
    ROUND_STEPS,
    SYSTEMS,
    WIDTH,
    Row,
    Setting,
    data,
    model_of,
    on_device,
    one_group,
    stepper,
    timed,
    write_profile,
)
from torch import Tensor, nn

from hms_dist.core.files import write_json
from hms_dist.model.loss import kl_rows

MEASURED = ("timm eager", "timm + compile", "hms_dist + compile")
"""Those that are timed unless others are asked for."""


def parser() -> argparse.ArgumentParser:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    arguments.add_argument("--batches", nargs="+", type=int, default=[16, 32], help="images of a training step")
    arguments.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(MEASURED))
    arguments.add_argument("--compile_mode", default="default", help="torch.compile's, for all that are compiled")
    arguments.add_argument(
        "--profile", type=Path, help="write tables of each training step's kernels and calls here (GPU)"
    )
    arguments.add_argument("--json", type=Path, help="write all figures here too")
    arguments.add_argument("--device", type=torch.device, default=torch.device("cuda"), help="cuda or cpu")
    arguments.add_argument("--model", default="tiny_vit_21m_512", help="timm's name of the TinyViT")
    arguments.add_argument("--size", nargs=2, type=int, default=[HEIGHT, WIDTH], help="height and width of its images")
    arguments.add_argument("--rounds", type=int, default=NUM_ROUNDS, help="rounds of steps that are timed")
    arguments.add_argument("--round_steps", type=int, default=ROUND_STEPS, help="steps of a round")
    arguments.add_argument("--predict_batch", type=int, default=16, help="images of a prediction")
    arguments.add_argument("--efficientnet_batch", type=int, default=128, help="images of EfficientNet's step")
    arguments.add_argument("--curve_steps", type=int, default=CURVE_STEPS, help="steps of the loss curves")
    return arguments


def main() -> None:
    options = parser().parse_args()
    setting = Setting(
        options.device, options.model, tuple(options.size), options.rounds, options.round_steps, options.curve_steps
    )
    rows: list[Row] = []
    for part in options.parts:
        for row in PARTS[part](options, setting):
            rows.append({"part": part, **row})
            print(" | ".join(f"{name} {_text(value)}" for name, value in rows[-1].items()), flush=True)
            if options.json:  # after each, so that a failure does not lose all of them
                facts = {"gpu": setting.device_name, "torch": torch.__version__, "timm": version("timm")}
                write_json(options.json, {**facts, "rows": rows})
            gc.collect()
            if setting.device.type == "cuda":
                torch.cuda.empty_cache()
    print("\n".join(reached(rows)))


def training_steps(options: argparse.Namespace, setting: Setting) -> Iterator[Row]:
    """Each system at each batch size."""
    for name in options.systems:
        for batch in options.batches:
            step = stepper(model_of(name, setting, mode=options.compile_mode), *data(batch, setting))
            yield {"system": name, "batch": batch, **timed(step, batch, setting)}
            if options.profile:
                write_profile(step, options.profile / f"{name.replace(' + ', ' ').replace(' ', '-')}-{batch}.txt")
            del step
            torch.compiler.reset()


def predictions(options: argparse.Namespace, setting: Setting) -> Iterator[Row]:
    """Probabilities, means of an image and its mirror image."""
    for name in options.systems:
        model, batch = model_of(name, setting, mode=options.compile_mode).eval(), options.predict_batch
        images, _ = data(batch, setting)

        @torch.no_grad()
        def predict(model: nn.Module = model, images: Tensor = images) -> None:
            with torch.autocast(images.device.type, torch.bfloat16):
                torch.stack([model(images), model(images.flip(-1))]).float().softmax(-1).mean(0)

        yield {"system": name, "batch": batch, **timed(predict, batch, setting)}
        torch.compiler.reset()


def efficientnet(options: argparse.Namespace, setting: Setting) -> Iterator[Row]:
    """Training step of timm's EfficientNet-B0."""
    import timm

    batch, setting = options.efficientnet_batch, replace(setting, size=(512, 512))
    for name in ("eager", "compile"):
        model = on_device(timm.create_model("tf_efficientnet_b0", in_chans=1, num_classes=NUM_CLASSES), setting)
        if name == "compile":
            model.compile(dynamic=False)
        step = stepper(model, *data(batch, setting))
        yield {"system": f"timm {name}", "batch": batch, **timed(step, batch, setting)}
        torch.compiler.reset()


def equalities(options: argparse.Namespace, setting: Setting) -> Iterator[Row]:
    """Relative distances from timm in true float32, without drop-path; then two loss curves with it."""
    torch.backends.cudnn.allow_tf32 = False
    images, targets = data(2, setting)
    exact = gradients(model_of("timm eager", setting, drop_path_rate=0.0), images, targets)
    largest = max(float(gradient.norm()) for gradient in exact[1:])
    for name in options.systems:
        for dtype in (torch.float32, torch.bfloat16) if SYSTEMS[name][0] else (torch.bfloat16,):
            found = gradients(model_of(name, setting, drop_path_rate=0.0), images, targets, dtype)
            whole = [torch.cat([tensor.flatten() for tensor in tensors[1:]]) for tensors in (found, exact)]
            apart = [float((ours - theirs).norm()) for ours, theirs in zip(found[1:], exact[1:], strict=True)]
            yield {
                "system": name,
                "type": str(dtype).removeprefix("torch."),
                "logits": distance(found[0], exact[0]),
                "gradients": distance(*whole),
                "worst parameter over the largest norm": max(apart) / largest,
            }
            torch.compiler.reset()
    torch.backends.cudnn.allow_tf32 = True
    curves = [loss_curve(name, setting) for name in ("timm eager", "hms_dist eager")]
    for step in [step for step in (0, 9, 24, 49) if step < setting.curve_steps]:
        yield {"step": step + 1, "timm loss": curves[0][step], "hms_dist loss": curves[1][step]}


PARTS: dict[str, Callable[[argparse.Namespace, Setting], Iterator[Row]]] = {
    "step": training_steps,
    "equal": equalities,
    "predict": predictions,
    "efficientnet": efficientnet,
}


def gradients(
    model: nn.Module, images: Tensor, targets: Tensor, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, ...]:
    """Logits, then the gradient of each parameter."""
    one_group(model, len(images))
    with torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32):
        logits = model(images)
    return logits.detach(), *torch.autograd.grad(kl_rows(logits, targets).sum(), list(model.parameters()))


def loss_curve(name: str, setting: Setting) -> list[float]:
    """Losses of some steps on four images."""
    model = model_of(name, setting)
    torch.manual_seed(2)
    step = stepper(model, *data(4, setting))
    return [step().item() for _ in range(setting.curve_steps)]


def distance(found: Tensor, wanted: Tensor) -> float:
    return ((found.double() - wanted.double()).norm() / wanted.double().norm()).item()


def reached(rows: list[Row]) -> Iterator[str]:
    """A line for each target whose rows were measured."""

    def best(part: str, system: str, name: str = "images/s") -> float:
        return max((row[name] for row in rows if row["part"] == part and row.get("system") == system), default=nan)

    def of_type(name: str, system: str, dtype: str) -> float:
        return next((row[name] for row in rows if (row.get("system"), row.get("type")) == (system, dtype)), nan)

    own, compiled, eager = "hms_dist + compile", "timm + compile", "timm eager"
    memory = max(
        (row["GiB"] for row in rows if "GiB" in row and (row.get("system"), row.get("batch")) == (own, 32)), default=nan
    )
    exact = max(
        (row[name] for row in rows if row.get("type") == "float32" for name in ("logits", "gradients")), default=nan
    )
    bf16 = of_type("gradients", own, "bfloat16") / of_type("gradients", eager, "bfloat16")
    for what, found, wanted in (
        ("training step, times timm + compile", best("step", own) / best("step", compiled), "2 or more"),
        ("training step, times timm eager", best("step", own) / best("step", eager), ""),
        ("GiB at batch 32", memory, "40 or less"),
        (
            "prediction, mirrored too, times timm eager",
            best("predict", own) / best("predict", eager),
            "2 or more",
        ),
        ("float32: outputs and gradients, distance from timm", exact, "1e-4 or less"),
        ("bf16: gradients, distance over that of timm in bf16", bf16, "about 1"),
    ):
        if not isnan(found):
            yield f"{what}: {found:.3g}" + (f" (wanted: {wanted})" if wanted else "")


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
