"""The sliding-window network: stride, position of windows, losses and predictions against slow formulas."""

import numpy as np
import pytest
import torch
from torch import nn

from hms_dist.config.load import from_dict
from hms_dist.core.errors import UserError
from hms_dist.model.build import ModelConfig, build
from hms_dist.model.loss import bce_rows
from hms_dist.model.sliding_window import (
    STRIDE,
    SlidingWindowConfig,
    SlidingWindowNet,
    at_least_one,
    num_columns,
    positive_negative_rows,
    shares_of,
    sliding_windows,
    window_weights,
)

SLIDING = SlidingWindowConfig()
NETS = ["resnet10t", "resnet34", "tf_efficientnet_lite0", "convnext_atto", "regnetx_002"]


def net(name: str, **options: object) -> nn.Module:
    return build(ModelConfig(name=name, sliding_window=SLIDING, **options), seed=3)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.usefixtures("torch_rng")
def test_the_stride_is_16_and_every_weight_learns(name: str) -> None:
    model = net(name)
    images = torch.rand(2, 1, 48, 112)
    assert model.backbone.forward_features(images).shape[2:] == (3, num_columns(112))
    windows = window_weights(sliding_windows(32, 112), 32, 112)[None]
    logits = model(images, windows)
    assert logits.shape == (2, 6, 6)
    logits.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


def test_resnet34_loses_its_first_pooling_and_nothing_else() -> None:
    plain = build(ModelConfig(name="resnet34"), seed=3)
    model = net("resnet34").backbone
    assert isinstance(model.maxpool, nn.Identity)
    weights = plain.state_dict()
    assert all(torch.equal(tensor, weights.pop(name)) for name, tensor in model.state_dict().items())
    assert not weights


def test_packaged_weights_reach_the_net() -> None:
    sliding = net("tf_efficientnet_lite0", weights="package").backbone.state_dict()
    plain = build(ModelConfig(name="tf_efficientnet_lite0", weights="package"), seed=3).state_dict()
    assert all(torch.equal(sliding[name], plain[name]) for name in plain if not name.startswith("classifier."))


@pytest.mark.parametrize("name", ["tiny_vit_5m_224", "vit_tiny_patch16_224", "densenet121"])
def test_a_model_without_such_features_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=rf"^model\.name: {name} has no features at stride 16"):
        net(name)


def test_an_option_that_the_model_lacks_keeps_its_own_message() -> None:
    with pytest.raises(UserError, match=r"^model\.drop_path_rate: densenet121 has no such option"):
        net("densenet121", drop_path_rate=0.1)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.usefixtures("torch_rng")
def test_one_window_over_everything_is_the_plain_model(name: str) -> None:
    """The head is the model's: pooling, norm, dropout, classifier."""
    model = net(name, drop_rate=0.5).eval()
    images = torch.rand(3, 1, 64, 96)
    whole = window_weights(torch.tensor([0.0]), 96, 96)[None]
    torch.testing.assert_close(model(images, whole)[:, 0], model.backbone(images), rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("torch_rng")
def test_windows_of_rows_and_shared_windows_agree() -> None:
    model = net("resnet10t").double().eval()
    images = torch.rand(4, 1, 32, 160, dtype=torch.float64)
    lefts = sliding_windows(48, 160)
    every = model(images, window_weights(lefts, 48, 160)[None])
    chosen = torch.tensor([3, 0, 7, 5])
    own = model(images, window_weights(lefts[chosen], 48, 160)[:, None])
    torch.testing.assert_close(own[:, 0], every[torch.arange(4), chosen], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["resnet10t", "resnet34", "tf_efficientnet_lite0"])
def test_a_window_depends_on_its_own_columns(name: str) -> None:
    """The gradient of a window's logits with respect to the image is centred, along time, on the window.

    Up to half a stride, and one-sided padding (TensorFlow's).
    """
    torch.manual_seed(5)  # recorded: the middle for two pictures scatters by 4 columns, a quarter of the bound
    model = net(name).double().eval()
    width = 28 * STRIDE
    for left in (10.0 * STRIDE, 13.3 * STRIDE):
        images = torch.rand(2, 1, 32, width, dtype=torch.float64, requires_grad=True)
        answer = model(images, window_weights(torch.tensor([left]), 4 * STRIDE, width)[None])
        (gradient,) = torch.autograd.grad(answer.square().sum(), images)
        weight = gradient.square().sum(dim=(0, 1, 2))
        middle = float((weight * torch.arange(width)).sum() / weight.sum())
        assert middle == pytest.approx(left + 2 * STRIDE, abs=STRIDE)


def test_an_impulse_activates_the_window_around_it_most() -> None:
    """With a backbone whose columns do not depend on their neighbours: it sums each 16 x 16 square."""

    class Squares(nn.Module):
        def forward_features(self, images: torch.Tensor) -> torch.Tensor:
            return nn.functional.avg_pool2d(images, STRIDE)

        def forward_head(self, features: torch.Tensor) -> torch.Tensor:
            return features.mean(dim=(2, 3))

    images = torch.zeros(1, 1, 32, 400)
    images[..., 200:210] = 1
    lefts = sliding_windows(80, 400)
    outputs = SlidingWindowNet(Squares())(images, window_weights(lefts, 80, 400)[None])[0, :, 0]
    holds = (lefts <= 192) & (lefts + 80 >= 224)
    assert (outputs[holds] == outputs.max()).all()
    assert (outputs[(lefts + 80 <= 192) | (lefts >= 224)] == 0).all()


def test_window_weights_are_shares_of_pixels(rng: np.random.Generator) -> None:
    """Against a mean over pixels, one by one."""
    width, length = 16 * 9 + 4, 37
    lefts = rng.integers(0, width - length, 20)
    for left, weights in zip(lefts, window_weights(torch.from_numpy(lefts), length, width), strict=True):
        counted = np.bincount(np.arange(left, left + length) // STRIDE, minlength=num_columns(width))
        np.testing.assert_allclose(weights.numpy(), counted / length, atol=1e-15)
    assert sliding_windows(37, 100).tolist() == [0, 16, 32, 48]
    assert sliding_windows(100, 100).tolist() == [0]


def test_losses_against_a_loop(rng: np.random.Generator) -> None:
    logits = rng.normal(0, 3, (20, 6))
    votes = rng.multinomial(3, rng.dirichlet(np.full(6, 0.3), 20))
    shares = votes / 3
    positive, negative = positive_negative_rows(torch.from_numpy(logits), torch.from_numpy(shares))
    assert positive.dtype == torch.float64
    torch.testing.assert_close(positive + negative, bce_rows(torch.from_numpy(logits), torch.from_numpy(shares)))
    for row in range(20):
        expected = [0.0, 0.0]
        for share, logit in zip(shares[row], logits[row], strict=True):
            q = 1 / (1 + np.exp(-logit))
            expected[int(share == 0)] -= share * np.log(q) + (1 - share) * np.log(1 - q)
        assert (6 * float(positive[row]), 6 * float(negative[row])) == pytest.approx(expected)
    half = positive_negative_rows(torch.from_numpy(logits).bfloat16(), torch.from_numpy(shares))
    assert half[0].dtype == torch.float32


@pytest.mark.usefixtures("torch_rng")
def test_the_loss_is_least_at_the_shares_and_far_from_it_finite() -> None:
    shares = torch.tensor([[0.25, 0.75, 0, 0, 0, 0]], dtype=torch.float64)
    logits = torch.tensor([[0.0, 0, -40, -40, -40, -40]], dtype=torch.float64, requires_grad=True)
    with torch.no_grad():
        logits[0, :2] = torch.logit(shares[0, :2])
    positive, negative = positive_negative_rows(logits, shares)
    (positive + negative).sum().backward()
    assert logits.grad is not None
    assert logits.grad.abs().max() < 1e-15
    assert all(loss.isfinite().all() for loss in positive_negative_rows(1e4 * torch.randn(5, 6), shares.expand(5, 6)))


@pytest.mark.usefixtures("torch_rng")
def test_pooling_against_direct_formulas() -> None:
    logits = torch.randn(7, 9, 6, dtype=torch.float64) * 3
    p = 1 / (1 + np.exp(-logits.numpy()))
    np.testing.assert_allclose(at_least_one(logits, "max").numpy(), p.max(axis=1), rtol=1e-12)
    np.testing.assert_allclose(at_least_one(logits, "noisy_or").numpy(), 1 - np.prod(1 - p, axis=1), rtol=1e-9)
    assert (at_least_one(logits, "noisy_or") >= at_least_one(logits, "max") - 1e-12).all()
    small = torch.full((1, 9, 6), -60.0, dtype=torch.float64)
    assert float(at_least_one(small, "noisy_or")[0, 0]) == pytest.approx(9 * np.exp(-60.0), rel=1e-9)


def test_shares_sum_to_one_even_of_nothing() -> None:
    shares = shares_of(torch.tensor([[0.0] * 6, [0.2, 0, 0, 0, 0, 0.6], [1.0] * 6]))
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(3))
    torch.testing.assert_close(shares[1], torch.tensor([0.25, 0, 0, 0, 0, 0.75]))
    torch.testing.assert_close(shares[0], torch.full((6,), 1 / 6))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"negative_weight": -1.0}, "negative_weight: expected 0 or more, found -1.0"),
        ({"crop_share": 0.0}, r"crop_share: expected a share in \(0, 1\], found 0.0"),
        ({"paste_probability": 1.5}, "paste_probability: expected 0 to 1, found 1.5"),
        ({"pooling": "mean"}, "pooling"),
        ({"pool": "max"}, "unknown option 'pool'; did you mean pooling\\? one of: pooling"),
    ],
)
def test_bad_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        from_dict(ModelConfig, {"name": "resnet18", "sliding_window": options})


def test_options_are_read() -> None:
    config = from_dict(ModelConfig, {"name": "resnet18", "sliding_window": {"pooling": "noisy_or"}})
    assert config.sliding_window == SlidingWindowConfig(pooling="noisy_or")
