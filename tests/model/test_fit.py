"""Models that do not fit a canvas: a one-line error each, without computing a forward pass."""

import pytest
import timm
import torch
from timm.models import _registry
from torch import nn

from hms_dist.core.errors import UserError
from hms_dist.model.build import ModelConfig, build
from hms_dist.model.fit import check_fit
from hms_dist.model.sliding_window import SlidingWindowConfig

TINY = {"embed_dim": 48, "depth": 1, "num_heads": 3}


@pytest.mark.parametrize(
    ("options", "num_rows", "size"),
    [
        ({"name": "test_efficientnet"}, 2, (64, 96)),
        ({"name": "tiny_vit_21m_512", "drop_path_rate": 0.1}, 8, (640, 1920)),
        ({"name": "tiny_vit_5m_224", "grad_checkpointing": True}, 2, (64, 104)),
        ({"name": "resnet18d"}, 2, (64, 64)),
        ({"name": "vit_tiny_patch16_224", "kwargs": TINY | {"img_size": "canvas"}}, 1, (64, 96)),
        ({"name": "vit_tiny_patch16_224", "kwargs": TINY | {"img_size": [64, 96]}}, 1, (64, 96)),
        ({"name": "vit_tiny_patch16_224", "kwargs": TINY}, 1, (224, 224)),
        ({"name": "resnet10t", "sliding_window": SlidingWindowConfig()}, 2, (64, 160)),
    ],
)
def test_a_model_that_fits(options, num_rows, size):
    state = torch.random.get_rng_state()
    check_fit(ModelConfig(**options), num_rows, size, num_ranks=2)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    ("options", "num_rows", "message"),
    [
        (
            {"name": "swin_tiny_patch4_window7_224"}, 2,
            r"^model\.name: swin_tiny_patch4_window7_224 cannot take 2 pictures of 64 x 64 \(AssertionError: Input "
            r"height \(64\) doesn't match model \(224\)\.\); set model\.kwargs\.img_size: canvas$",
        ),
        (
            {"name": "efficientformer_l1"}, 2,
            r"cannot take 2 pictures of 64 x 64 \(RuntimeError: .*\); choose another canvas size or another model",
        ),
        ({"name": "csatv2"}, 2, r"^model\.name: csatv2 cannot take 2 pictures of 64 x 64 .*; choose another canvas"),
        (
            {"name": "swin_tiny_patch4_window7_224", "kwargs": {"patch_size": 256}}, 2,
            r"AssertionError: Input.*; with model\.kwargs\.img_size: canvas neither \(RuntimeError: .*\); choose",
        ),
        ({"name": "vit_tiny_patch16_224", "kwargs": {"img_size": 32}}, 2, r"Input height \(64\) .*; choose another"),
        (
            {"name": "resnest14d"}, 1,
            r"^group_size: resnest14d cannot train on groups of 1 picture of 64 x 64 \(ValueError: Expected more than "
            r"1 value .*\); set group_size to 2 or more, or choose a model without batch norm$",
        ),
        ({"name": "resnet18", "kwargs": {"global_pool": ""}}, 2, r"^model\.name: resnet18 cannot take 2 pictures"),
        (
            {"name": "resnet18", "kwargs": {"depht": 2}}, 2,
            r"^model\.kwargs: resnet18 cannot be built with depht: 2 \(TypeError: .*'depht'\); give arguments of",
        ),
        ({"name": "vit_tiny_patch16_224", "kwargs": {"num_heads": 7}}, 2, r"^model\.kwargs: .* with num_heads: 7 \(.*"),
    ],
)  # fmt: skip
def test_a_model_that_does_not(options, num_rows, message):
    with pytest.raises(UserError, match=message) as raised:
        check_fit(ModelConfig(**options), num_rows, (64, 64))
    assert "\n" not in str(raised.value)


class NeedsNumbers(nn.Module):
    """Reads values of its activations, which the meta device does not have."""

    def __init__(self, num_classes, width):
        super().__init__()
        self.width, self.head, self.spare = width, nn.Linear(width, num_classes), nn.Linear(1, 1)
        self.largest = torch.linspace(0, 1, 3)[-1].item()

    def forward(self, images):
        means = images.mean((1, 2))
        return self.head(means + float(means.abs().max()))


@pytest.fixture
def needs_numbers(monkeypatch):
    def make(pretrained=False, num_classes=6, width=64, **_):
        assert not pretrained
        return NeedsNumbers(num_classes, width)

    monkeypatch.setitem(_registry._model_entrypoints, "needs_numbers", make)
    assert timm.is_model("needs_numbers")


@pytest.mark.usefixtures("needs_numbers")
def test_a_model_that_looks_at_its_numbers_is_tried_on_the_cpu():
    check_fit(ModelConfig(name="needs_numbers"), 2, (64, 64))
    with pytest.raises(UserError, match=r"cannot take 2 pictures of 64 x 96 \(RuntimeError: .*\); choose another"):
        check_fit(ModelConfig(name="needs_numbers"), 2, (64, 96))


def test_parameters_without_gradients_are_refused_on_several_ranks(monkeypatch):
    def make(pretrained=False, num_classes=6, **_):
        assert not pretrained
        model = nn.Sequential(nn.Flatten(), nn.Linear(64 * 64, num_classes))
        model.register_parameter("spare", nn.Parameter(torch.zeros(1)))
        return model

    monkeypatch.setitem(_registry._model_entrypoints, "spares", make)
    check_fit(ModelConfig(name="spares"), 2, (64, 64), num_ranks=1)
    with pytest.raises(UserError, match=r"spares has 1 parameters that no gradient reaches \(spare\).*on one rank"):
        check_fit(ModelConfig(name="spares"), 2, (64, 64), num_ranks=2)


def test_arguments_reach_the_model():
    model = build(ModelConfig(name="vit_tiny_patch16_224", kwargs=TINY | {"img_size": "canvas"}), 0, size=(64, 96))
    assert len(model.blocks) == 1
    assert model.patch_embed.grid_size == (4, 6)


def test_arguments_that_timm_fixes_are_refused():
    with pytest.raises(UserError, match=r"built with depths: \[1\] \(TypeError: .*multiple values for .*'depths'\)"):
        check_fit(ModelConfig(name="poolformer_s12", kwargs={"depths": [1]}), 2, (64, 64))
