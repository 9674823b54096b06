"""Models: shapes, keyed initialisation, and one line for each mistake."""

import pytest
import timm
import torch

from hms_dist.config.load import from_dict
from hms_dist.core.errors import UserError
from hms_dist.model.build import ModelConfig, build
from hms_dist.model.names import check_name
from hms_dist.model.tiny_vit.blocks import WindowBlock


@pytest.mark.parametrize(
    ("name", "height", "width"),
    [
        ("tf_efficientnet_b0", 64, 64),
        ("tf_efficientnet_lite0", 64, 96),
        ("resnet34d", 64, 64),
        ("tiny_vit_5m_224", 64, 104),
        pytest.param("efficientnet_b4", 64, 64, marks=pytest.mark.slow),
        pytest.param("tiny_vit_21m_512", 96, 160, marks=pytest.mark.slow),
    ],
)
@pytest.mark.usefixtures("torch_rng")
def test_one_channel_in_six_logits_out(name: str, height: int, width: int) -> None:
    model = build(ModelConfig(name=name), seed=1)
    assert model.training
    assert next(model.parameters()).shape[1] == 1
    logits = model(torch.rand(2, 1, height, width))
    assert logits.shape == (2, 6)
    logits.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.usefixtures("torch_rng")
def test_the_seed_alone_decides_the_weights(rng) -> None:
    seed, config = int(rng.integers(2**32 - 1)), ModelConfig(name="resnet18")
    first = build(config, seed).state_dict()
    torch.rand(7)
    state = torch.random.get_rng_state()
    again, other = build(config, seed).state_dict(), build(config, seed + 1).state_dict()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])
    assert not torch.equal(first["fc.weight"], other["fc.weight"])


def test_tiny_vit_gets_its_faster_blocks() -> None:
    model = build(ModelConfig(name="tiny_vit_5m_224"), seed=1)
    assert any(isinstance(module, WindowBlock) for module in model.modules())


def test_rates_reach_the_model() -> None:
    model = build(ModelConfig(name="tf_efficientnet_lite0", drop_rate=0.37, drop_path_rate=0.21), seed=0)
    assert model.drop_rate == 0.37
    rates = [module.drop_prob for module in model.modules() if hasattr(module, "drop_prob")]
    assert 0 < max(rates) <= 0.21
    model = build(ModelConfig(name="tiny_vit_5m_224", drop_path_rate=0.1), seed=0)
    assert max(module.drop_prob for module in model.modules() if hasattr(module, "drop_prob")) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "tinyvit_21m_512"}, r"^model\.name: timm has no model 'tinyvit_21m_512'; close to it: .*tiny_vit"),
        ({"name": "timm/resnet18"}, r"^model\.name: timm has no model 'timm/resnet18'; .*hub is hf-hub:OWNER/MODEL, "),
        ({"name": "hf-hub:timm/resnet18"}, r"^model\.name: no model of 'hf-hub:timm/resnet18' \(.*check the name"),
        ({"name": "hf_hub:timm/resnet18"}, r"^model\.name: no model of 'hf_hub:timm/resnet18' \(.*check the name"),
        ({"name": "local-dir:no/such"}, r"^model\.name: no/such/config\.json: no such file; expected a folder"),
        ({"name": "resnet18.nonsense"}, r"^model\.name: timm has no weights 'nonsense' of resnet18; it has: .*a1_in1k"),
        ({"name": "vgg11", "drop_path_rate": 0.1}, r"^model\.drop_path_rate: vgg11 has no such option; leave it out"),
        ({"name": "vgg11", "grad_checkpointing": True}, r"^model\.grad_checkpointing: vgg11 cannot recompute"),
        ({"name": "efficientnet_b6", "weights": "hub"}, r"^model\.weights: no weights of efficientnet_b6 from the hub"),
    ],
)  # fmt: skip
def test_a_model_that_cannot_be_built(options: dict[str, object], message: str, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=message) as raised:
        build(ModelConfig(**options), seed=0)  # type: ignore[arg-type]
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_damaged_folder_of_a_model(name: str, tmp_path) -> None:
    timm.models.save_for_hf(timm.create_model("test_efficientnet"), tmp_path, safe_serialization=True)
    (tmp_path / name).write_text("{")
    with pytest.raises(UserError, match=r"^model\.name: no model of 'local-dir:.*expected timm's config\.json and"):
        build(ModelConfig(name=f"local-dir:{tmp_path}", weights="hub"), seed=0)


@pytest.mark.usefixtures("torch_rng")
def test_the_model_of_a_folder(tmp_path) -> None:
    published = timm.create_model("test_efficientnet")
    timm.models.save_for_hf(published, tmp_path, safe_serialization=True)
    name = f"local-dir:{tmp_path}"
    check_name(name)
    found, expected = build(ModelConfig(name=name, weights="hub"), seed=0).state_dict(), published.state_dict()
    changed = {"conv_stem.weight", "classifier.weight", "classifier.bias"}
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in found.keys() - changed)
    torch.testing.assert_close(found["conv_stem.weight"], expected["conv_stem.weight"].sum(1, keepdim=True))
    fresh = build(ModelConfig(name=name), seed=0).state_dict()
    plain = build(ModelConfig(name="test_efficientnet"), seed=0).state_dict()
    assert all(torch.equal(fresh[key], plain[key]) for key in plain)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kwargs": {"num_classes": 3}}, "model.kwargs: 'num_classes' cannot be set here: the data set has the"),
        (
            {"kwargs": {"checkpoint_path": "a.pth"}},
            "'checkpoint_path' cannot be set here: model.weights and model.name",
        ),
        ({"kwargs": {"drop_rate": 0.5}}, "model.kwargs: 'drop_rate' cannot be set here: use model.drop_rate; leave it"),
        ({"kwargs": {"a b": 0.5}}, "model.kwargs: expected names of arguments of timm's constructor, found 'a b'"),
        ({"kwargs": {"depth": float("nan")}}, "model.kwargs.depth: expected a number, a word, or lists or mappings of"),
        (
            {"kwargs": {"img_size": "all"}},
            r"model.kwargs.img_size: expected canvas, a number of pixels or \[height, wid",
        ),
        ({"kwargs": {"img_size": [64, 0]}}, r"model.kwargs.img_size: expected canvas, .* found \[64, 0\]"),
        ({"weights": "imagenet"}, "weights: unknown 'imagenet'; one of: none, hub, package, or a path ending in"),
        ({"weights": "package"}, "holds weights of tf_efficientnet_lite0 only, name is 'tf_efficientnet_b0'; set name"),
        ({"drop_rate": 1.5}, r"drop_rate: expected a probability in \[0, 1\), found 1.5"),
        ({"drop_path_rate": -0.1}, r"drop_path_rate: expected a probability in \[0, 1\), found -0.1"),
    ],
)
def test_bad_options_are_refused_when_parsed(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        from_dict(ModelConfig, options)
