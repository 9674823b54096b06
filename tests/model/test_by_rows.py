"""Networks by rows: which layers are replaced, which properties are kept, and which networks are rejected."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import timm
import torch
from timm.layers import DropPath
from torch import Tensor, nn

from hms_dist.core.errors import UserError
from hms_dist.model.build import ModelConfig, build
from hms_dist.model.by_rows import check_rows, convert
from hms_dist.model.group_norms import GroupBatchNorm, GroupNorms
from hms_dist.model.keyed_dropout import KeyedDropout, KeyedDropPath
from hms_dist.model.pass_rows import PassRows, draw_words, whole_groups

NETS = {
    "test_efficientnet": {"drop_rate": 0.3, "drop_path_rate": 0.3},
    "resnet10t": {"drop_rate": 0.3, "drop_path_rate": 0.2},
    "test_vit": {"drop_rate": 0.2, "drop_path_rate": 0.2, "kwargs": {"img_size": "canvas", "attn_drop_rate": 0.2}},
}
"""Dropout in the forward function before the head (the first two), as a layer, and of attention."""
PICTURES = torch.zeros(1, 1, 64, 64)


def call(model: nn.Module, pictures: Tensor) -> Tensor:
    result: Tensor = model(pictures)
    return result


def checked(model: nn.Module, pictures: Tensor = PICTURES) -> PassRows:
    """Convert and check `model`; return its PassRows."""
    rows = PassRows(torch.device("cpu"))
    convert(model, rows)
    check_rows("net", model, rows, call, pictures.to(next(model.parameters()).dtype))
    return rows


def net(name: str, **options: Any) -> nn.Module:
    return build(ModelConfig(name=name, **{**NETS.get(name, {}), **options}), seed=5, size=(64, 64)).double()


def begin(model: nn.Module, rows: PassRows, group_size: int, places: Sequence[int], step: int = 0) -> None:
    rows.begin(whole_groups(len(places) // group_size, group_size), draw_words(1, 0, step, places))
    norms = GroupNorms(model, rows)
    norms.begin_step()
    norms.begin_pass()


def simple(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 4, 3), *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 6))


class LessMean(nn.Module):
    """Subtracts the mean over the rows."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0, keepdim=True)


class LessOther(nn.Module):
    """Rows less one other each: `shift` rows before them, or, in pairs, the other one."""

    def __init__(self, shift: int | None, *, detached: bool = False, only_with_gradients: bool = False) -> None:
        super().__init__()
        self.shift, self.detached, self.only_with_gradients = shift, detached, only_with_gradients

    def forward(self, x: Tensor) -> Tensor:
        if self.only_with_gradients and not torch.is_grad_enabled():
            return x
        pairs = x.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)
        other = pairs if self.shift is None else x.roll(self.shift, 0)
        return x - 0.3 * (other.detach() if self.detached else other)


class WithNoise(nn.Module):
    """A forward function that draws random numbers from torch or NumPy."""

    def __init__(self, numpy: bool) -> None:
        super().__init__()
        self.numpy = numpy

    def forward(self, x: Tensor) -> Tensor:
        return x + (np.random.random() if self.numpy else torch.rand(()))  # noqa: NPY002


class Twice(nn.Module):
    """A network that uses one layer twice."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.body, self.shared, self.head = nn.Conv2d(1, 4, 3), layer, nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.shared(self.body(x))
        result: Tensor = self.head(self.shared(x).mean((2, 3)))
        return result


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: simple(nn.Dropout2d(0.2)), r"net draws random numbers in 1 \(Dropout2d\) that cannot be drawn by row"),
        (lambda: simple(nn.Sequential(nn.RReLU())), r"net draws random numbers in 1\.0 \(RReLU\) that cannot be drawn"),
        (lambda: simple(nn.AlphaDropout(0.1)), r"net draws random numbers in 1 \(AlphaDropout\) that cannot be drawn"),
        (lambda: simple(WithNoise(False)), r"net draws random numbers in 1 \(WithNoise\) that cannot be drawn by row"),
        (lambda: simple(WithNoise(True)), r"net draws random numbers in 1 \(WithNoise\) that cannot be drawn by row"),
        (lambda: Twice(nn.Dropout(0.2)), "net uses its layer shared twice, so its draws would repeat"),
        (lambda: Twice(DropPath(0.2)), "net uses its layer shared twice, so its draws would repeat"),
        (lambda: simple(LessMean()), "net mixes the rows of a batch outside of batch norm"),
        *[
            (lambda layers=layers: simple(*layers), "net mixes the rows of a batch outside of batch norm")
            for layers in (
                [LessOther(None)],
                [LessOther(None, detached=True)],
                [LessOther(1)],
                [LessOther(3)],
                [nn.BatchNorm2d(4), LessOther(None), nn.BatchNorm2d(4)],
                [LessOther(None, only_with_gradients=True), nn.BatchNorm2d(4)],
            )
        ],
    ],
)
@pytest.mark.usefixtures("torch_rng")
def test_what_cannot_be_by_rows_is_refused(model: Any, message: str) -> None:
    with pytest.raises(UserError, match=rf"^model\.name: {message}.* choose another model$"):
        checked(model())


@pytest.mark.usefixtures("torch_rng")
def test_what_draws_nothing_or_by_row_is_taken() -> None:
    for layers in (
        [nn.Dropout2d(0.0), nn.Dropout(0.0)],
        [nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), DropPath(0.3)],
        [nn.GroupNorm(2, 4), nn.RReLU(0.2, 0.2).eval()],
    ):
        checked(simple(*layers))
    checked(Twice(nn.ReLU()))


@pytest.mark.usefixtures("torch_rng")
def test_a_check_leaves_no_trace() -> None:
    """The network, its modes, its scales of zero and torch's generator are unchanged."""
    model = simple(nn.BatchNorm2d(4), nn.Dropout(0.3))
    frozen = nn.BatchNorm2d(4).eval()
    model.insert(1, frozen)
    nn.init.zeros_(model[2].weight)
    before, generator = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    checked(model)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert [module.training for module in model] == [True, False, *[True] * 5]
    assert torch.equal(torch.get_rng_state(), generator)


@pytest.mark.usefixtures("torch_rng")
def test_rows_that_meet_behind_a_scale_of_zero_are_found() -> None:
    """The initial scale of a branch may be zero, but it is trained."""

    class Branch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.zeros(4))

        def forward(self, x: Tensor) -> Tensor:
            return x + self.scale.view(-1, 1, 1) * LessMean()(x)

    model = simple(Branch())
    with pytest.raises(UserError, match="mixes the rows of a batch outside of batch norm"):
        checked(model)
    assert not model[1].scale.any()


@pytest.mark.parametrize("name", NETS)
def test_a_net_of_timms_draws_by_row_under_the_names_that_it_had(name: str, torch_rng: torch.Generator) -> None:
    model = net(name)
    before = copy.deepcopy(model.state_dict())
    rows = checked(model)
    assert list(model.state_dict()) == list(before)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    modules = list(model.modules())
    assert not any(type(module) in (nn.Dropout, DropPath) and getattr(module, "p", 1) > 0 for module in modules)
    assert not any(
        isinstance(m, nn.modules.batchnorm._BatchNorm) and not isinstance(m, GroupBatchNorm) for m in modules
    )
    images = torch.randn(6, 1, 64, 64, dtype=torch.float64, generator=torch_rng)
    begin(model, rows, 2, range(6))
    first = model(images)
    torch.rand(5)
    begin(model, rows, 2, range(6))
    assert torch.equal(model(images), first)
    for others in (range(6, 12), range(6)):  # other places, another step
        begin(model, rows, 2, others, step=int(others[0] == 0))
        assert (model(images) != first).any(dim=1).all()
    groups = []  # and the groups alone, in another order
    for start in (4, 0, 2):
        begin(model, rows, 2, range(start, start + 2))
        groups.append(model(images[start : start + 2]))
    torch.testing.assert_close(torch.cat(groups), torch.cat([first[4:], first[:4]]), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["test_efficientnet", "resnet10t"])
def test_dropout_in_a_forward_function_is_keyed_with_its_rate(name: str, torch_rng: torch.Generator) -> None:
    model = net(name, drop_rate=0.4, drop_path_rate=None)
    rows = checked(model)
    seen: list[Tensor] = []
    head = model.get_classifier()
    inner = head.forward
    head.forward = lambda x: seen.append(x.detach()) or inner(x)  # type: ignore[assignment]
    images = torch.randn(8, 1, 64, 64, dtype=torch.float64, generator=torch_rng)
    begin(model, rows, 4, range(8))
    dropped = model(images)
    assert model.drop_rate == 0.0
    (features,) = seen
    seen.clear()
    plain = net(name, drop_rate=0.0, drop_path_rate=None)
    plain.load_state_dict(model.state_dict())
    plain_rows = checked(plain)
    begin(plain, plain_rows, 4, range(8))
    wanted = plain.forward_head(plain.forward_features(images), pre_logits=True)
    kept = features != 0
    torch.testing.assert_close(features[kept], wanted[kept] / 0.6, rtol=1e-6, atol=1e-12)
    live = wanted != 0  # an activation may have made zeros already
    share = float((~kept)[live].double().mean())
    assert abs(share - 0.4) < 6 * (0.4 * 0.6 / int(live.sum())) ** 0.5
    head.eval()  # frozen, as `freeze` does it
    assert not torch.equal(model(images), dropped)
    torch.testing.assert_close(seen[-1], wanted, rtol=1e-10, atol=1e-10)


def test_dropout_of_attention_is_keyed_and_not_fused() -> None:
    model = net("test_vit")
    checked(model)
    for block in model.blocks:
        assert type(block.attn.attn_drop) is KeyedDropout
        assert not block.attn.fused_attn
    layers = [m.layer for m in model.modules() if isinstance(m, KeyedDropout | KeyedDropPath)]
    assert len(set(layers)) == len(layers) > 4
    without = net("test_vit", kwargs={"img_size": "canvas"})
    fused = [block.attn.fused_attn for block in without.blocks]
    checked(without)
    assert [block.attn.fused_attn for block in without.blocks] == fused


@pytest.mark.parametrize("layer", [nn.ReLU, nn.SiLU, nn.Hardswish])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.usefixtures("torch_rng")
def test_an_activation_behind_a_norm_may_work_in_place(layer: Any, memory_format: torch.memory_format) -> None:
    gradients = []
    plain = simple(nn.BatchNorm2d(4), layer(inplace=False)).double()
    images = torch.randn(4, 1, 9, 9, dtype=torch.float64)
    for inplace in (False, True):
        model = copy.deepcopy(plain).to(memory_format=memory_format)
        model[2].inplace = inplace
        begin(model, checked(model), 2, range(4))
        model(images.to(memory_format=memory_format)).square().sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", NETS)
def test_evaluation_is_plain_timms(name: str, torch_rng: torch.Generator) -> None:
    model = net(name)
    checked(model)
    kwargs = {"img_size": (64, 64)} if name == "test_vit" else {}
    plain = timm.create_model(name, num_classes=6, in_chans=1, **kwargs).double()
    plain.load_state_dict(model.state_dict())
    images = torch.randn(3, 1, 64, 64, dtype=torch.float64, generator=torch_rng)
    torch.testing.assert_close(model.eval()(images), plain.eval()(images), rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("torch_rng")
def test_what_was_frozen_stays_frozen_and_every_drawing_layer_has_its_number() -> None:
    layers = [
        nn.Dropout(0.1),
        nn.Dropout(0.2).eval(),
        DropPath(0.3, scale_by_keep=False),
        nn.Dropout(0.0),
        DropPath(0.0),
    ]
    model = nn.Sequential(*layers, nn.BatchNorm1d(3).eval())
    convert(model, PassRows(torch.device("cpu")))
    kinds = [KeyedDropout, KeyedDropout, KeyedDropPath, nn.Dropout, DropPath, GroupBatchNorm]
    assert [type(module) for module in model] == kinds
    assert [module.training for module in model] == [True, False, True, True, True, False]
    assert [module.layer for module in model[:3]] == [0, 1, 2]
    assert (model[0].p, model[1].p, model[2].drop_prob, model[2].scale_by_keep) == (0.1, 0.2, 0.3, False)
