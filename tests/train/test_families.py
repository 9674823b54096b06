"""Families of timm: small members train, resume bit for bit, and are exported: plain timm loads their weights.

docs/models.md lists them; the five without the mark `long` are the cheapest of each kind.
"""

import json
import re
import shutil
from pathlib import Path

import pytest
import timm
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

import hms_dist
from hms_dist.model.arguments import constructor_arguments
from hms_dist.model.build import build
from hms_dist.train.folder.checkpoint import load_weights
from hms_dist.train.loop import run

DOCS = Path(__file__).parents[2] / "docs/models.md"
SIZE = (64, 64)
FIXED = {"img_size": "canvas"}
TINY = {**FIXED, "embed_dim": 48, "depth": 2, "num_heads": 3}
STAGES = {"depths": [1, 1, 1, 1]}
FAMILIES = {
    "beit_base_patch16_224": TINY,
    "beitv2_base_patch16_224": TINY,
    "caformer_s18": {},
    "cait_xxs24_224": TINY | {"depth": 2, "num_heads": 4},
    "coatnet_pico_rw_224": FIXED,
    "convformer_s18": {},
    "convnext_atto": STAGES,
    "convnextv2_atto": STAGES,
    "crossvit_tiny_240": {},
    "cspresnet50": {},
    "davit_tiny": {"depths": [1, 1, 1, 1], "embed_dims": [24, 48, 96, 192]},
    "deit3_small_patch16_224": TINY,
    "densenet121": {"block_config": [2, 2, 2, 2]},
    "edgenext_xx_small": {},
    "efficientformerv2_s0": FIXED,
    "efficientnet_b0": {},
    "efficientnetv2_rw_t": {},
    "efficientvit_b0": {},
    "efficientvit_m0": {},
    "eva02_tiny_patch14_224": TINY | {"patch_size": 16},
    "fastvit_t8": {},
    "focalnet_tiny_srf": {},
    "ghostnetv2_100": {},
    "hgnetv2_b0": {},
    "hiera_tiny_224": FIXED | {"embed_dim": 24, "stages": [1, 1, 1, 1]},
    "inception_next_atto": {},
    "levit_128s": FIXED,
    "mambaout_femto": STAGES,
    "maxvit_pico_rw_256": FIXED,
    "mixer_s32_224": FIXED,
    "mobilenetv3_small_050": {},
    "mobilenetv4_conv_small_050": {},
    "mobileone_s0": {},
    "mobilevit_xxs": {},
    "mvitv2_tiny": {},
    "nf_resnet26": {},
    "dm_nfnet_f0": {},
    "pit_ti_224": FIXED,
    "poolformer_s12": {},
    "pvt_v2_b0": {},
    "rdnet_tiny": {},
    "regnety_002": {},
    "repvgg_a0": {},
    "repvit_m0_9": {},
    "resnest14d": {},
    "resnet18d": {},
    "starnet_s1": {},
    "swin_tiny_patch4_window7_224": FIXED | {"embed_dim": 24, "depths": [1, 1, 1, 1]},
    "swinv2_tiny_window8_256": FIXED | {"embed_dim": 24, "depths": [1, 1, 1, 1]},
    "swinv2_cr_tiny_224": FIXED | {"embed_dim": 24, "depths": [1, 1, 1, 1]},
    "tf_efficientnetv2_b0": {},
    "tiny_vit_5m_224": {},
    "vit_tiny_patch16_224": TINY,
    "vit_small_patch16_dinov3": {"embed_dim": 48, "depth": 2, "num_heads": 3},
    "volo_d1_224": FIXED,
    "xcit_nano_12_p16_224": {"depth": 2},
}
"""timm's name -> model.kwargs."""
QUICK = (
    "convnext_atto", "eva02_tiny_patch14_224", "regnety_002", "swin_tiny_patch4_window7_224", "vit_tiny_patch16_224",
)  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in QUICK else pytest.mark.long) for name in FAMILIES]
)
def test_it_trains_resumes_bit_for_bit_and_is_exported(small, name, tmp_path, torch_rng):
    kwargs = FAMILIES[name]
    options = {
        "model__name": name, "model__kwargs": json.dumps(kwargs), "model__drop_rate": "null",
        "model__drop_path_rate": "null", "fold": "none", "left_out_folds": "[0,1]", "epochs": 1, "global_batch": 6,
        "group_size": 3, "checkpoint_every": 1, "augment__reverse_probability": 0.5,
    }  # fmt: skip
    whole, stopped = small("whole", **options), small("stopped", **options)
    run(whole)
    shutil.copytree(whole.out, stopped.out)
    checkpoints = stopped.out / "checkpoints"
    shutil.rmtree(checkpoints / "step-00000002")
    (checkpoints / "latest").write_text("step-00000001\n")
    shutil.rmtree(stopped.out / "final")
    (stopped.out / "status.json").write_text(json.dumps({"state": "running"}))
    AcceleratorState._reset_state(reset_partial_state=True)
    torch.manual_seed(int(torch.randint(2**31, (), generator=torch_rng)))
    run(stopped)
    product = load_file(whole.out / "final/model.safetensors")
    resumed = load_file(stopped.out / "final/model.safetensors")
    first = load_file(whole.out / "checkpoints/step-00000001/model.safetensors")
    assert product.keys() == resumed.keys()
    assert all(torch.equal(product[key], resumed[key]) for key in product)
    assert any(not torch.equal(product[key], first[key]) for key in product)

    ours = build(whole.model, seed=1, size=SIZE)
    load_weights(ours, whole.out / "final")
    plain = timm.create_model(name, num_classes=6, in_chans=1, **constructor_arguments(kwargs, SIZE))
    plain.load_state_dict(product)
    pictures = torch.rand(2, 1, *SIZE, generator=torch_rng)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(pictures), plain.eval()(pictures), rtol=1e-5, atol=1e-5)
    hms_dist.load_run(whole.out).export(tmp_path / "export", program=True)  # compares the logits


def test_the_documentation_lists_those_tried():
    section = DOCS.read_text().partition("\n## Tried\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| [^|]+ \| `(\w+)` \|", section, re.MULTILINE)
    assert sorted(rows) == sorted(FAMILIES)
    assert len(FAMILIES) >= 25
