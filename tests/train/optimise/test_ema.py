"""The moving average against its formula, written out."""

from pathlib import Path

import pytest
import torch
from torch import nn

from hms_dist.config.load import from_dict
from hms_dist.core.errors import UserError
from hms_dist.model.build import ModelConfig, build
from hms_dist.train.optimise.ema import Ema, EmaConfig


def net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2))


def moved(model: nn.Sequential) -> dict[str, torch.Tensor]:
    """Shift every parameter and statistic at random, as a step would; the new state."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    model(torch.randn(4, 1, 4, 4, dtype=model[0].weight.dtype))
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("warmup", [False, True])
@pytest.mark.usefixtures("torch_rng")
def test_equals_the_weighted_sum_of_all_states(warmup: bool, rng) -> None:
    model, decay = net(), rng.uniform(0.2, 0.99)
    states = [{name: tensor.clone() for name, tensor in model.state_dict().items()}]
    ema = Ema(EmaConfig(decay=decay, warmup=warmup), model)
    num_updates = 25
    for _ in range(num_updates):
        states.append(moved(model))
        ema.update()
    kept = [min(decay, (1 + n) / (10 + n)) if warmup else decay for n in range(1, num_updates + 1)]
    shares = [1.0]
    for decay_now in kept:
        shares = [share * decay_now for share in shares] + [1 - decay_now]
    for name, tensor in ema.tensors.items():
        if tensor.is_floating_point():
            expected = sum(share * state[name].double() for share, state in zip(shares, states, strict=True))
            torch.testing.assert_close(tensor.double(), expected, rtol=1e-5, atol=1e-5)
            assert tensor.dtype == torch.float32
        else:
            assert torch.equal(tensor, states[-1][name])
    assert ema.effective_decay == kept[-1]


def test_warmup_of_16_updates_is_that_of_the_16th_place() -> None:
    config = EmaConfig(decay=0.8, warmup=True)
    found = [round(config.effective_decay(n), 2) for n in range(1, 17)]
    assert found == [0.18, 0.25, 0.31, 0.36, 0.4, 0.44, 0.47, 0.5, 0.53, 0.55, 0.57, 0.59, 0.61, 0.62, 0.64, 0.65]
    assert config.effective_decay(10**6) == 0.8
    assert Ema(config, net()).effective_decay == 2 / 11  # before the first update, what it will keep


@pytest.mark.usefixtures("torch_rng")
def test_float64_stays_float64() -> None:
    model = net().double()
    ema = Ema(EmaConfig(decay=0.5), model)
    before, after = model[3].weight.detach().clone(), moved(model)["3.weight"]
    ema.update()
    torch.testing.assert_close(ema.tensors["3.weight"], (before + after) / 2, rtol=1e-14, atol=1e-15)


@pytest.mark.usefixtures("torch_rng")
def test_the_model_gets_the_average_and_its_own_weights_back() -> None:
    model = net()
    ema = Ema(EmaConfig(decay=0.9), model)
    own = moved(model)
    ema.update()
    average = {name: tensor.clone() for name, tensor in ema.tensors.items()}
    with ema.in_place():
        torch.testing.assert_close(dict(model.state_dict()), average, rtol=0, atol=0)
    torch.testing.assert_close(dict(model.state_dict()), own, rtol=0, atol=0)
    with pytest.raises(RuntimeError, match="interrupted"), ema.in_place():
        raise RuntimeError("interrupted")
    torch.testing.assert_close(dict(model.state_dict()), own, rtol=0, atol=0)
    torch.testing.assert_close(ema.tensors, average, rtol=0, atol=0)


@pytest.mark.usefixtures("torch_rng")
def test_cached_attention_biases_follow_the_weights() -> None:
    """timm's TinyViT answers from biases that it cached, in evaluation mode, until somebody makes it look again."""
    model = build(ModelConfig(name="tiny_vit_5m_224"), seed=0).eval()
    images = torch.randn(1, 1, 64, 64)
    biases = [parameter for name, parameter in model.named_parameters() if "attention_biases" in name]
    ema = Ema(EmaConfig(decay=0.5), model)
    with torch.no_grad():
        first = model(images)
        for parameter in biases:
            parameter.add_(torch.randn_like(parameter))
        assert torch.equal(model(images), first)
        ema.update()
        with ema.in_place():
            averaged = model(images)
            assert not model.training
        own = model(images)
    assert not torch.allclose(averaged, first, atol=1e-4)
    assert not torch.allclose(own, first, atol=1e-4)
    assert not torch.allclose(own, averaged, atol=1e-4)


@pytest.mark.usefixtures("torch_rng")
def test_a_compiled_model_is_averaged_under_its_own_names() -> None:
    model = net()
    names = set(model.state_dict())
    model.compile(backend="eager")
    ema = Ema(EmaConfig(decay=0.0), model)
    state = moved(model)
    ema.update()
    assert set(ema.tensors) == set(model.state_dict()) == names
    torch.testing.assert_close(ema.tensors, state, rtol=0, atol=0)


def test_an_average_of_another_model_is_refused(tmp_path: Path) -> None:
    ema = Ema(EmaConfig(decay=0.5), net())
    path = str(tmp_path / "ema.safetensors")
    others = (nn.Linear(2, 2).state_dict(), {**net().state_dict(), "3.bias": torch.zeros(7)})
    for tensors, found in zip(others, (r"\d+ tensors differ", "1 tensors differ, 3.bias first"), strict=True):
        with pytest.raises(UserError, match=rf"{path}: this average is of another model \({found}.*resume with"):
            ema.restore(tensors, 3, path)
    state = net().state_dict()
    ema.restore(state, 3, path)
    assert ema.num_updates == 3
    torch.testing.assert_close(ema.tensors, dict(state), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decay": 1.0}, r"decay: expected a number in \[0, 1\), or null, found 1.0"),
        ({"warmup": True}, "warmup and evaluate_raw: need an average; set decay"),
        ({"evaluate_raw": True}, "warmup and evaluate_raw: need an average; set decay"),
    ],
)
def test_bad_options_are_refused_when_parsed(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        from_dict(EmaConfig, options)


def test_it_follows_a_model_that_moves(torch_rng):
    """`.to` an equal device copies: CPU ranks are on cpu:0. A model moved so has other tensors than before."""
    model = net()
    ema = Ema(EmaConfig(decay=0.5), model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    held = model.state_dict()["1.running_mean"]
    model.to(torch.device("cpu", 0))
    assert held.data_ptr() != model.state_dict()["1.running_mean"].data_ptr()
    after = moved(model)
    ema.update()
    for name in ("0.weight", "1.running_mean"):
        torch.testing.assert_close(ema.tensors[name], (before[name] + after[name]) / 2)
    assert ema.tensors["1.num_batches_tracked"] == 1
    with ema.in_place():
        torch.testing.assert_close(dict(model.state_dict()), ema.tensors, rtol=0, atol=0)
    torch.testing.assert_close(dict(model.state_dict()), after, rtol=0, atol=0)
