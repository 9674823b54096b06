"""The replaced convolutions against torch's and timm's: which are replaced, outputs, gradients, compiled."""

import copy

import pytest
import timm
import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn

from hms_dist.model import gpus
from hms_dist.model.convolutions import ChannelConv, FirstConv, FirstConvSame, fast_convolutions


@pytest.fixture
def everywhere(monkeypatch) -> None:
    """Use the fast convolutions on the CPU too."""
    monkeypatch.setattr(gpus, "is_for", lambda *_: True)


def gradients(model: nn.Module, images: Tensor, weigh: Tensor | None = None) -> list[Tensor]:
    """The output and the gradients of all parameters."""
    torch.manual_seed(3)
    out = model(images)
    grad = torch.linspace(-1, 1, out.numel(), dtype=out.dtype, device=out.device).view_as(out)
    return [out, *torch.autograd.grad(out, list(model.parameters()), grad if weigh is None else weigh)]


@pytest.mark.usefixtures("everywhere", "torch_rng")
@pytest.mark.parametrize("kind", [nn.Conv2d, Conv2dSame])
@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("shape", [(12, 20), (13, 9), (7, 16)])
def test_a_first_convolution_is_a_product_with_patches(kind, channels, has_bias, shape) -> None:
    conv = kind(channels, 5, 3, stride=2, padding=1, bias=has_bias).double()
    fast = fast_convolutions(copy.deepcopy(conv))
    assert type(fast) is {nn.Conv2d: FirstConv, Conv2dSame: FirstConvSame}[kind]
    images = torch.randn(2, channels, *shape, dtype=torch.float64)
    for found, wanted in zip(gradients(fast, images), gradients(conv, images), strict=True):
        assert torch.allclose(found, wanted, rtol=1e-12, atol=1e-12)
    assert fast(images).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.usefixtures("everywhere", "torch_rng")
@pytest.mark.parametrize("size", [3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", [(9, 14), (8, 13)])
def test_a_convolution_of_single_channels_has_torchs_gradients(size, stride, shape) -> None:
    conv = nn.Conv2d(6, 6, size, stride, size // 2, groups=6, bias=False).double()
    fast = fast_convolutions(copy.deepcopy(conv))
    assert type(fast) is ChannelConv
    images = torch.randn(2, 6, *shape, dtype=torch.float64, requires_grad=True)
    found, wanted = fast(images), conv(images)
    assert torch.equal(found, wanted)
    grad = torch.randn_like(wanted)
    expected = torch.autograd.grad(wanted, [images, conv.weight], grad)
    ours = torch.autograd.grad(found, [images, fast.weight], grad)
    for one, other in zip(ours, expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(4, 8, 3, stride=2, padding=1),  # more than a few channels
        nn.Conv2d(1, 8, 7, stride=2, padding=3),  # patches of another size
        nn.Conv2d(1, 8, 3, stride=2, padding=1, padding_mode="reflect"),
        nn.Conv2d(1, 8, 3, stride=2, padding=1, dilation=2),
        nn.Conv2d(6, 6, 3, stride=3, padding=1, groups=6, bias=False),
        nn.Conv2d(6, 6, 3, stride=(1, 2), padding=1, groups=6, bias=False),
        nn.Conv2d(6, 6, 3, padding=1, groups=6),  # with a bias
        nn.Conv2d(6, 6, 3, padding=2, dilation=2, groups=6, bias=False),
        nn.Conv2d(6, 12, 3, padding=1, groups=6, bias=False),
        nn.Conv2d(6, 6, 3, groups=6, bias=False),
        nn.Conv2d(6, 6, 1, groups=6, bias=False),
        nn.Conv2d(6, 6, (3, 5), padding=(1, 2), groups=6, bias=False),
        nn.Conv2d(6, 6, 3, padding="same", groups=6, bias=False),
    ],
)
def test_other_convolutions_stay_what_they_are(conv: nn.Conv2d) -> None:
    assert type(fast_convolutions(conv)) is nn.Conv2d


@pytest.mark.usefixtures("everywhere", "torch_rng")
@pytest.mark.parametrize(
    ("name", "num_exchanged"), [("tf_efficientnet_b0", 13), ("resnet34d", 1), ("efficientnet_b0", 17)]
)
def test_a_whole_net_is_timms(name: str, num_exchanged: int) -> None:
    model = timm.create_model(name, in_chans=1, num_classes=6).double()
    fast = fast_convolutions(copy.deepcopy(model))
    ours = (FirstConv, FirstConvSame, ChannelConv)
    assert sum(isinstance(module, ours) for module in fast.modules()) == num_exchanged
    assert list(fast.state_dict()) == list(model.state_dict())
    images = torch.randn(2, 1, 64, 96, dtype=torch.float64)
    wanted, found = gradients(model, images), gradients(fast, images)
    largest = max(value.norm() for value in wanted)
    for one, other in zip(found, wanted, strict=True):
        assert (one - other).norm() < 1e-11 * (other.norm() + 1e-3 * largest)


@pytest.mark.usefixtures("torch_rng")
def test_on_a_cpu_it_is_timms_own_way() -> None:
    model = timm.create_model("tf_efficientnet_b0", in_chans=1, num_classes=6)
    fast, images = fast_convolutions(copy.deepcopy(model)), torch.randn(2, 1, 64, 96)
    assert all(map(torch.equal, gradients(fast, images), gradients(model, images)))


@pytest.mark.usefixtures("everywhere", "torch_rng")
def test_under_autocast_it_computes_in_its_type() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 1, 1, groups=4, bias=False))
    fast, images = fast_convolutions(copy.deepcopy(model)), torch.randn(2, 1, 12, 16)
    with torch.autocast("cpu", torch.bfloat16):
        found, wanted = gradients(fast, images), gradients(model, images)
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == other.dtype
        assert (one - other).float().norm() < 0.02 * other.float().norm()


@pytest.mark.slow
@pytest.mark.usefixtures("everywhere", "no_compiler_cache", "torch_rng")
def test_the_compiler_makes_the_same_of_it() -> None:
    last = [nn.Conv2d(4, 4, 5, stride, 2, groups=4, bias=False) for stride in (1, 2)]
    model = nn.Sequential(Conv2dSame(1, 4, 3, 2), nn.SiLU(), *last)
    fast, images = fast_convolutions(copy.deepcopy(model)), torch.randn(2, 1, 14, 18)
    fast.forward = torch.compile(fast.forward, fullgraph=True, dynamic=False)
    for one, other in zip(gradients(fast, images), gradients(model, images), strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("torch_rng")
@pytest.mark.parametrize(("size", "height", "width"), [(3, 9, 14), (3, 6, 37), (5, 8, 13), (7, 3, 2)])
def test_the_operator_of_stride_2_keeps_torchs_rules(size: int, height: int, width: int) -> None:
    grad, kernel = torch.randn(2 * ((height + 1) // 2) * ((width + 1) // 2), 5), torch.randn(5, 1, size, size)
    torch.library.opcheck(torch.ops.hms_dist.depthwise_input_gradient.default, (grad, kernel, height, width))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.usefixtures("torch_rng")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("size", "channels", "height", "width"), [(3, 5, 9, 14), (3, 192, 40, 70), (5, 96, 33, 65), (7, 64, 3, 2)]
)
def test_on_a_gpu_the_kernel_of_stride_2_is_torchs_function(
    size: int, channels: int, height: int, width: int, dtype: torch.dtype
) -> None:
    grad = torch.randn(2 * ((height + 1) // 2) * ((width + 1) // 2), channels).to(dtype)
    kernel = torch.randn(channels, 1, size, size).to(dtype)
    operator = torch.ops.hms_dist.depthwise_input_gradient
    found, wanted = (
        operator(grad.cuda(), kernel.cuda(), height, width),
        operator(grad.double(), kernel.double(), height, width),
    )
    assert found.dtype == dtype
    largest = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}[dtype]
    assert (found.cpu().double() - wanted).abs().max() < largest * wanted.abs().max()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.usefixtures("torch_rng")
def test_on_a_gpu_it_is_timms_function(compiled: bool, monkeypatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    model = timm.create_model("tf_efficientnet_b0", in_chans=1, num_classes=6).cuda()
    fast = fast_convolutions(copy.deepcopy(model)).to(memory_format=torch.channels_last)
    images = torch.randn(2, 1, 128, 96, device="cuda")
    grad = torch.randn(2, 6, device="cuda")
    wanted = gradients(model.double(), images.double(), grad.double())
    fast.forward = torch.compile(fast.forward, dynamic=False) if compiled else fast.forward
    largest = max(value.norm() for value in wanted)
    for one, other in zip(gradients(fast, images, grad), wanted, strict=True):
        assert (one - other).norm() < 1e-3 * (other.norm() + 1e-3 * largest)
