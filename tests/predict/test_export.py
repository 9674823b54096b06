"""Exported weights: the card's snippet, in a process without hms_dist, gives the logits of the run."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

import hms_dist
from hms_dist.cli import main
from hms_dist.core.files import sha256_of
from hms_dist.model.build import ModelConfig, build

SCRIPT = """
import sys
from safetensors.torch import load_file, save_file
import torch
images = load_file("images.safetensors")["images"]
{snippet}
assert "hms_dist" not in sys.modules
save_file({{"logits": logits.detach(), "probabilities": probabilities.detach()}}, "found.safetensors")
"""


def found_by_snippet(card_path, images):
    """Outputs of the card's snippet, run in the card's folder without this package."""
    folder, card = card_path.parent, json.loads(card_path.read_text())
    save_file({"images": images}, folder / "images.safetensors")
    script = SCRIPT.format(snippet="\n".join(card["snippet"]))
    words = [sys.executable, "-P", "-c", script]
    done = subprocess.run(words, cwd=folder, env={"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return load_file(folder / "found.safetensors")


@pytest.fixture
def images(torch_rng):
    return torch.rand(3, 1, 64, 64, generator=torch_rng)


def test_the_snippet_gives_the_logits_of_the_run(trained, tmp_path, images):
    out = tmp_path / "export"
    assert main(["export", "--run", str(trained), "--out", str(out), "--program"]) == 0
    model = hms_dist.load_run(trained)
    found = found_by_snippet(out / "model_card.json", images)
    with torch.no_grad():
        torch.testing.assert_close(found["logits"], model.network(images), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found["probabilities"], model(images), rtol=1e-4, atol=1e-5)
    card = json.loads((out / "model_card.json").read_text())
    assert len(card["snippet"]) == 5
    assert card["classes"] == list(model.classes)
    assert (card["in_chans"], card["input_size"]) == (1, [64, 64])
    assert card["sha256"] == sha256_of(out / "model.safetensors")
    assert card["canvas"]["placements"][0]["normalise"]["class_path"] == "Affine"
    assert card["panels"]["traces"]["class_path"] == "Traces"
    of_run = json.loads((trained / "best/model_card.json").read_text())
    assert {name: card[name] for name in of_run} == of_run
    assert (out / "model_card.md").read_text() == (trained / "best/model_card.md").read_text()
    program = torch.export.load(out / "model.pt2").module()
    for number in (1, 2, 3):  # the number of pictures is free
        torch.testing.assert_close(program(images[:number]), found["logits"][:number], rtol=1e-4, atol=1e-5)


def test_a_sliding_window_gives_the_logits_of_the_annotated_window(trained_sliding, tmp_path, torch_rng, monkeypatch):
    images = torch.rand(2, 1, 64, 160, generator=torch_rng)
    model = hms_dist.load_run(str(trained_sliding))
    card = model.export(tmp_path / "sliding.safetensors")
    assert (tmp_path / "sliding.safetensors").is_file()
    monkeypatch.chdir(tmp_path)
    found = {"images": images}
    exec("\n".join(json.loads(card.read_text())["snippet"]), found)
    with torch.no_grad():
        own = model.task.predict(model.network, images)[:, len(model.classes) :]
    torch.testing.assert_close(found["logits"].detach().sigmoid(), own, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "kwargs", "program"),
    [
        ("tiny_vit_5m_224", {}, False),
        pytest.param("tiny_vit_5m_224", {}, True, marks=pytest.mark.slow),
        ("vit_tiny_patch16_224", {"img_size": "canvas", "embed_dim": 48, "depth": 2, "num_heads": 3}, True),
        ("vit_tiny_patch16_224", {"dynamic_img_size": True, "embed_dim": 48, "depth": 2, "num_heads": 3}, True),
        ("vit_small_patch16_dinov3", {"embed_dim": 48, "depth": 2, "num_heads": 3}, True),
    ],
)
def test_transformers_on_a_wide_canvas(trained, tmp_path, monkeypatch, torch_rng, name, kwargs, program):
    """A run's network replaced by one with random weights; tests/train/test_families.py exports trained ones."""
    model = hms_dist.load_run(trained)
    model.canvas = replace(model.canvas, height=64, width=160)
    model.config = replace(model.config, model=ModelConfig(name=name, kwargs=kwargs))
    model.network = build(model.config.model, seed=1, size=(64, 160)).eval()
    card = model.export(tmp_path / "out", program=program)
    monkeypatch.chdir(card.parent)
    found = {"images": torch.rand(2, 1, 64, 160, generator=torch_rng)}
    exec("\n".join(json.loads(card.read_text())["snippet"]), found)
    with torch.no_grad():
        torch.testing.assert_close(found["logits"], model.network(found["images"]), rtol=1e-4, atol=1e-5)


def test_other_logits_stop_the_export(trained, tmp_path):
    model = hms_dist.load_run(trained)
    model.network.forward = lambda images: torch.zeros(len(images), 6)
    with pytest.raises(hms_dist.JobError, match="gives other logits"):
        model.export(tmp_path / "out")
    assert not (tmp_path / "out").exists()
