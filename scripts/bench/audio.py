"""Speed of the panels of audio: drawn offline compared with librosa, and drawn on the device against stored ones.

python scripts/bench/audio.py [--clip FILE] [--rounds N] [--batch N] [--device cpu|cuda] [--steps N] [--json FILE]
    [--trainer OUT [--clips N] [--words NAME=VALUE ...]].

First table: one process, one thread, candidates in turns, medians of processor time of 10 s at 48 kHz (librosa comes
with the extra `bench`). Its last lines are the limit: the Fourier transforms alone, by SciPy in float32.
Second table: rows a second of a canvas from batches in host memory to finished images, from stored pictures and drawn
from stored samples; with --model NAME also images a second of training steps of that timm model on both.
Third table, with --trainer OUT: images a second of the recipe rfcx_resnet34, compiled, on simulated clips: from stored
pictures, the same drawn from stored samples, and as shipped, drawn from augmented samples.
Exits with 1 if a target is missed.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from recipes import trained
from rounds import Case, machine, measure, missed, table, write_json
from threadpoolctl import threadpool_limits
from trainer import hms_dist

from hms_dist.canvas.augment import AugmentConfig, Augmenter, RowFacts, one_group
from hms_dist.canvas.compose import Canvas
from hms_dist.canvas.options import CanvasConfig
from hms_dist.config.load import load
from hms_dist.panels.audio_pcen import AudioPcen
from hms_dist.panels.log_mel import LogMel
from hms_dist.panels.panel import AudioPanel
from hms_dist.panels.waveform import Waveform
from hms_dist.recordings.audio import read_audio

PACKAGES = ("numpy", "scipy", "numba", "librosa", "torch", "timm")
RATE_HZ, SECONDS = 48_000, 10
NUM_SAMPLES = RATE_HZ * SECONDS
TARGET = 3.0
"""Required speed-up over librosa."""
LOG_MEL, PCEN = LogMel(), AudioPcen()
Array = NDArray[np.float32]


def parser() -> argparse.ArgumentParser:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--clip", type=Path, help="flac or wav of at least 10 s (default: synthetic calls in noise)")
    words.add_argument("--rounds", type=int, default=31, help="times that every candidate is measured")
    words.add_argument("--batch", type=int, default=32, help="rows of a batch of the second table")
    words.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    words.add_argument("--steps", type=int, default=20, help="batches of a turn of the second table")
    words.add_argument("--model", help="timm model of the training steps")
    words.add_argument(
        "--trainer", type=Path, metavar="OUT", help="folder for clips, shard sets and runs of the trainer"
    )
    words.add_argument("--clips", type=int, default=200, help="simulated clips of the trainer")
    words.add_argument("--workers", type=int, default=8, help="processes that simulate and render")
    words.add_argument("--words", nargs="*", default=[], help="further options of the trainer's runs, as name=value")
    words.add_argument("--json", type=Path, help="file to write what was measured to")
    return words


def main() -> int:
    options = parser().parse_args()
    samples = clip(options.clip)
    with threadpool_limits(1):
        results = [measure(case) for case in offline_cases(samples, options.rounds)]
    rates = device_rates(samples, options)
    facts: dict[str, Any] = {"machine": machine(PACKAGES), "results": results, "device": rates}
    print(f"{facts['machine']['processor']}, 1 thread, medians of alternating rounds, processor time\n")
    print(table(results))
    print(f"\nRows a second on {rates['device']}, batches of {options.batch}, median of 5 turns:\n")
    print("| work | stored | drawn | drawn and augmented | drawn / stored |\n|---|--:|--:|--:|--:|")
    for work, found in rates["rates"].items():
        stored, drawn, augmented = (found[name] for name in ("stored", "drawn", "augmented"))
        print(f"| {work} | {stored:.1f} | {drawn:.1f} | {augmented:.1f} | {drawn / stored:.3f} |")
    if options.trainer:
        facts["trainer"] = trainer_rates(options)
    if options.json:
        write_json(options.json, facts)
    return int(missed(results))


def clip(path: Path | None) -> Array:
    """10 s of a file, or synthetic calls in noise, rounded to 16 bits: float32 [1, samples]."""
    if path is not None:
        found = read_audio(path, RATE_HZ).samples[:, :NUM_SAMPLES].astype(np.float64)
    else:
        time_s = np.arange(NUM_SAMPLES) / RATE_HZ
        calls = np.sin(2 * np.pi * (3000 + 400 * np.sin(12 * time_s)) * time_s) * (np.sin(5 * time_s) > 0)
        noise = np.random.default_rng(0).standard_normal(NUM_SAMPLES)
        found = (0.2 * calls + 0.01 * noise)[None]
    return (np.rint(found * 32768) / 32768).astype(np.float32)


def offline_cases(samples: Array, rounds: int) -> list[Case]:
    """Log-mel and PCEN against librosa, and both against their Fourier transforms alone."""
    from scipy import fft

    frames = np.lib.stride_tricks.sliding_window_view(np.pad(samples[0], 1024), 2048)[::512]

    def transforms() -> None:
        for first in range(0, len(frames), 32):
            fft.rfft(frames[first : first + 32] * LOG_MEL.window)

    def librosa_mel() -> Array:
        import librosa

        power: Array = librosa.feature.melspectrogram(y=samples[0], sr=RATE_HZ, n_fft=2048, hop_length=512, n_mels=128)
        return power

    def librosa_log_mel() -> Array:
        return np.log(np.maximum(librosa_mel(), LOG_MEL.least))

    def librosa_pcen() -> Array:
        import librosa

        found: Array = librosa.pcen(librosa_mel() * PCEN.scale, sr=RATE_HZ, hop_length=512)
        return found

    def check_log_mel() -> None:
        expected = librosa_log_mel()
        near = expected > expected.max() - 7 * np.log(10)  # 70 dB
        assert np.abs(LOG_MEL.log_power(samples)[0] - expected)[near].max() < 1e-4

    def check_pcen() -> None:
        expected = librosa_pcen()
        assert np.abs(PCEN.normalised(samples)[0] - expected).max() < 1e-4 * expected.max()

    needs, limit = {"librosa": ("librosa",)}, "rfft alone"
    return [
        Case(
            name="log-mel 128 x 938", ours=lambda: LOG_MEL.log_power(samples), check=check_log_mel, rounds=rounds,
            peers={"librosa": librosa_log_mel, limit: transforms}, needs=needs, targets={"librosa": TARGET},
        ),
        Case(
            name="PCEN 128 x 938", ours=lambda: PCEN.normalised(samples), check=check_pcen, rounds=rounds,
            peers={"librosa": librosa_pcen, limit: transforms}, needs=needs, targets={"librosa": TARGET},
        ),
    ]  # fmt: skip


def device_rates(samples: Array, options: argparse.Namespace) -> dict[str, Any]:
    """Rows a second of canvases, and of training steps if a model is named."""
    device = torch.device(options.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    panels: dict[str, AudioPanel] = {"waveform": Waveform(), "log_mel": LOG_MEL, "pcen": PCEN}
    margin = Waveform().margin_samples
    wide = np.pad(samples, ((0, 0), (margin, margin)))
    drawn = {panel: one.draw_samples(wide if panel == "waveform" else samples) for panel, one in panels.items()}
    stored = {panel: torch.from_numpy(np.stack([array] * options.batch)) for panel, array in drawn.items()}
    if device.type == "cuda":
        stored = {panel: array.pin_memory() for panel, array in stored.items()}
    specs = {panel: one.spec for panel, one in panels.items()}
    rates = {}
    for picture in ("log_mel", "pcen"):
        makers = {kind: maker(picture, kind, specs, stored, device) for kind in ("stored", "drawn", "augmented")}
        rates[picture] = alternating(makers, options, device)
        if options.model:
            steps = {kind: training_step(options.model, make, device) for kind, make in makers.items()}
            rates[f"{options.model} on {picture}"] = alternating(steps, options, device)
    return {"device": name, "batch": options.batch, "rates": rates}


def maker(
    picture: str, kind: str, specs: Any, stored: dict[str, torch.Tensor], device: torch.device
) -> Callable[[], torch.Tensor]:
    """A function that copies a batch to the device and composes its images."""
    recipe = f"audio_{picture}" + ("" if kind == "stored" else "_drawn")
    canvas = Canvas(load(CanvasConfig, ["--config", recipe]), specs, flips=False)
    number = len(next(iter(stored.values())))
    rows, targets = one_group(np.arange(number)), torch.zeros(number, 24, device=device)
    annotated_s = np.tile([3.7, 6.3], (number, 1))
    facts = RowFacts(np.arange(number) % 7 == 0, annotated_s, yes_no=True)
    augmenter = Augmenter(load(AugmentConfig, ["--config", "audio"]), canvas, facts) if kind == "augmented" else None

    def make() -> torch.Tensor:
        batch: Any = {name: stored[name].to(device, non_blocking=True) for name in canvas.members}
        if augmenter is not None:
            batch, _ = augmenter.signals(batch, targets, rows, seed=0, epoch=0)
        return canvas(batch)

    return make


def training_step(name: str, make: Callable[[], torch.Tensor], device: torch.device) -> Callable[[], torch.Tensor]:
    """A function that makes a batch and trains one step on it, in bfloat16."""
    import timm

    model = timm.create_model(name, in_chans=1, num_classes=24).to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step() -> torch.Tensor:
        images = make()
        with torch.autocast(device.type, torch.bfloat16):
            loss = model(images).float().square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return torch.as_tensor(loss.detach())

    return step


def trainer_rates(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Images a second, share of waiting for data and GB of GPU memory of the recipe's runs, which are printed."""
    clips, shards = options.trainer / "clips", options.trainer / "shards"
    workers = ("--workers", options.workers)
    if not (clips / "train_tp.csv").exists():
        hms_dist(
            "simulate", "--dataset", "rfcx", "--out", clips, "--num_recordings", options.clips, "--seed", 1, *workers
        )
    hms_dist("render", "--data", clips, "--out", shards, "--config", "configs/render/audio.yaml", *workers)
    runs = {
        "stored": ("canvas=configs/canvas/audio_pcen.yaml", "augment.signal_steps=[]"),
        "drawn": ("augment.signal_steps=[]",),
        "as shipped": (),
    }
    print("\n| rfcx_resnet34, compiled | images/s | of stored | data wait | GB |\n|---|--:|--:|--:|--:|")
    found: dict[str, dict[str, float]] = {}
    for kind, words in runs.items():
        given = argparse.Namespace(out=options.trainer, epochs=4, warm_up_steps=20, words=[*words, *options.words])
        found[kind] = row = trained(given, "rfcx_resnet34", shards, "default")
        share = row["images_per_s"] / found["stored"]["images_per_s"]
        print(f"| {kind} | {row['images_per_s']:.1f} | {share:.3f} | {row['data_wait_share']:.2%} | {row['gb']:.1f} |")
    return found


def alternating(
    makers: dict[str, Callable[[], torch.Tensor]], options: argparse.Namespace, device: torch.device
) -> dict[str, float]:
    """Rows a second of each candidate: medians of five turns, taken in turns."""
    for make in makers.values():
        make()
    taken: dict[str, list[float]] = {kind: [] for kind in makers}
    for _ in range(5):
        for kind, make in makers.items():
            synchronize(device)
            start = perf_counter()
            for _ in range(options.steps):
                make()
            synchronize(device)
            taken[kind].append(options.steps * options.batch / (perf_counter() - start))
    return {kind: float(np.median(values)) for kind, values in taken.items()}


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    sys.exit(main())
