"""The fast blocks against timm's: names, outputs, gradients, drop-path, training and evaluation mode."""

import copy
from typing import Any

import pytest
import timm
import torch
from timm.models.tiny_vit import MBConv, PatchMerging, TinyVitBlock, TinyVitStage
from torch import Tensor, nn

from hms_dist.model import norm_act
from hms_dist.model.group_norms import GroupNorms, group_batch_norms
from hms_dist.model.pass_rows import PassRows, draw_words, whole_groups
from hms_dist.model.tiny_vit import blocks as tiny_vit
from hms_dist.model.tiny_vit import window_attention
from hms_dist.model.tiny_vit.blocks import BLOCKS, WindowBlock, fast_blocks


def pair() -> tuple[nn.Module, nn.Module]:
    """timm's smallest TinyViT with random parameters, and the same with fast blocks."""
    model = timm.create_model("tiny_vit_5m_224", in_chans=1, num_classes=6, drop_path_rate=0.3)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3 if parameter.ndim < 3 else 0.1)
    return model, fast_blocks(copy.deepcopy(model))


@pytest.fixture
def everywhere(monkeypatch) -> None:
    """Use the fast blocks on the CPU too."""
    monkeypatch.setattr(tiny_vit, "has_kernels", lambda *_: True)


def by_group(model: nn.Module, num_rows: int, device: str = "cpu") -> GroupNorms:
    """Convert the norms of `model`, and begin a pass of one group of a number of rows."""
    rows = PassRows(torch.device(device))
    group_batch_norms(model, rows)
    rows.begin(whole_groups(1, num_rows), draw_words(0, 0, 0, range(num_rows)))
    norms = GroupNorms(model, rows)
    norms.begin_step()
    norms.begin_pass()
    return norms


def results(model: nn.Module, images: Tensor, grad: Tensor, norms: GroupNorms | None = None) -> dict[str, Tensor]:
    """Return logits, gradients of all parameters and running statistics; with `norms`, by group."""
    torch.manual_seed(3)
    logits = model(images)
    if norms is not None:
        norms.after_pass()
        norms.end_step(1)
    parameters = dict(model.named_parameters())
    gradients = torch.autograd.grad(logits, list(parameters.values()), grad)
    statistics = {name: buffer for name, buffer in model.named_buffers() if buffer.is_floating_point()}
    return {"logits": logits.detach()} | dict(zip(parameters, gradients, strict=True)) | statistics


@pytest.mark.usefixtures("torch_rng")
def test_names_stay_and_other_models_are_left_alone() -> None:
    model, fast = pair()
    assert [(name, tensor.shape) for name, tensor in fast.state_dict().items()] == [
        (name, tensor.shape) for name, tensor in model.state_dict().items()
    ]
    assert sum(isinstance(module, WindowBlock) for module in fast.modules()) == 10
    assert not any(type(module) in BLOCKS for module in fast.modules())
    other = timm.create_model("resnet18")
    before = [type(module) for module in other.modules()]
    assert [type(module) for module in fast_blocks(other).modules()] == before


@pytest.mark.usefixtures("everywhere", "torch_rng")
@pytest.mark.parametrize("training", [True, False])
def test_the_whole_model_is_timms(training: bool) -> None:
    model, fast = (each.double().train(training) for each in pair())
    images, grad = torch.randn(2, 1, 72, 136, dtype=torch.float64), torch.randn(2, 6, dtype=torch.float64)
    norms = by_group(fast, 2) if training else None
    wanted, found = results(model, images, grad), results(fast, images, grad, norms)
    largest = max(value.norm() for value in wanted.values())
    for name, value in wanted.items():
        # A bias before a batch norm in training has no effect: its gradient is rounding alone.
        assert (found[name] - value).norm() < 1e-12 * value.norm() + 1e-15 * largest, name


@pytest.mark.usefixtures("everywhere", "torch_rng")
@pytest.mark.parametrize("converted", [False, True])
def test_predictions_are_timms_and_use_the_operator(converted: bool, monkeypatch) -> None:
    model, fast = (each.double().eval() for each in pair())
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    fast.load_state_dict(model.state_dict())
    if converted:
        group_batch_norms(fast, PassRows(torch.device("cpu")))
    calls: list[Tensor] = []
    real = norm_act.plain_apply
    monkeypatch.setattr(norm_act, "plain_apply", lambda x, *rest: (calls.append(x), real(x, *rest))[1])
    images = torch.randn(3, 1, 72, 136, dtype=torch.float64)
    with torch.no_grad():
        wanted, found = model(images), fast(images)
    assert (found - wanted).norm() < 1e-12 * wanted.norm()
    assert len(calls) == sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


@pytest.mark.usefixtures("everywhere", "torch_rng")
def test_one_block_to_the_last_digits() -> None:
    model, fast = (each.double().stages[2].blocks[0] for each in pair())
    x = torch.randn(3, 17, 23, model.dim, dtype=torch.float64)
    grad = torch.randn_like(x)
    wanted, found = results(model, x, grad), results(fast, x, grad)
    for name, value in wanted.items():
        if name == "logits" or name.startswith("attn."):
            assert (found[name] - value).norm() < 1e-13 * value.norm(), name


@pytest.mark.usefixtures("everywhere", "torch_rng")
@pytest.mark.parametrize("frozen", ["conv1", "conv2", "conv3"])
def test_a_norm_that_is_frozen_stays_as_it_was(frozen: str) -> None:
    model = nn.Sequential(MBConv(4, 4, 2.0, nn.GELU, 0.0)).double()
    fast = fast_blocks(copy.deepcopy(model))
    for each in (model, fast):
        getattr(each[0], frozen).bn.eval()
    images = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    grad = torch.randn_like(images)
    wanted, found = results(model, images, grad), results(fast, images, grad, by_group(fast, 2))
    for name, value in wanted.items():
        assert torch.allclose(found[name], value, rtol=1e-10, atol=1e-12), name


@pytest.mark.usefixtures("everywhere", "torch_rng")
def test_weights_may_change_between_evaluations() -> None:
    _, fast = pair()
    fast.eval()
    images = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        before = fast(images)
        for module in fast.modules():
            if isinstance(module, WindowBlock):
                module.attn.attention_biases.add_(torch.randn_like(module.attn.attention_biases))
        assert not torch.equal(fast(images), before)


@pytest.mark.usefixtures("torch_rng")
def test_on_a_cpu_it_is_timms_own_path() -> None:
    model, fast = pair()
    images, grad = torch.randn(2, 1, 64, 72), torch.randn(2, 6)
    wanted, found = results(model, images, grad), results(fast, images, grad)
    assert all(torch.equal(found[name], value) for name, value in wanted.items())


@pytest.mark.slow
@pytest.mark.usefixtures("everywhere", "no_compiler_cache", "torch_rng")
@pytest.mark.parametrize(
    ("parts", "shape", "places"),
    [
        ([TinyVitBlock(32, 2, window_size=4)], (2, 9, 10, 32), (9, 10)),
        ([MBConv(8, 8, 2.0, nn.GELU, 0.0), PatchMerging(8, 16, nn.GELU)], (2, 8, 18, 26), (18, 26)),
    ],
)
def test_compiled_blocks_get_and_give_memory_as_it_was_traced(
    parts: list[nn.Module], shape: tuple[int, ...], places: tuple[int, int]
) -> None:
    """The compiler chooses the memory format of tensors between operators unless it is given; on a CPU as on a GPU."""
    model = nn.Sequential(*parts)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    x = torch.randn(shape)
    theirs, ours = copy.deepcopy(model).double(), fast_blocks(copy.deepcopy(model))
    by_group(ours, 2)
    compiled = torch.compile(ours.forward, dynamic=False)
    with torch.no_grad():  # pictures of another size first, else the compiler makes code for this one anyway
        larger = torch.randn([length + 2 if length in places else length for length in shape])
        assert torch.allclose(compiled(larger).double(), theirs(larger.double()), rtol=1e-3, atol=1e-3)
    wanted, found = theirs(x.double()), compiled(x)
    grad = torch.randn_like(found)
    expected = torch.autograd.grad(wanted, list(theirs.parameters()), grad.double())
    gradients = torch.autograd.grad(found, list(ours.parameters()), grad)
    for one, other in zip((found, *gradients), (wanted, *expected), strict=True):
        assert (one - other).norm() < 1e-3 * (other.norm() + 1)


@pytest.mark.slow
@pytest.mark.usefixtures("everywhere", "no_compiler_cache", "torch_rng")
def test_the_backward_pass_reads_what_the_forward_pass_wrote(monkeypatch) -> None:
    """Not a copy of it: the compiler would change the memory format of saved tensors with four dimensions."""
    read: list[list[int]] = []

    def noted(module: Any, name: str, which: slice) -> None:
        real = getattr(module, name)

        def noting(*tensors: Any, **options: Any) -> Any:
            read.append([tensor.data_ptr() for tensor in tensors[which]])
            return real(*tensors, **options)

        monkeypatch.setattr(module, name, noting)

    noted(norm_act, "plain_apply", slice(1))
    noted(norm_act, "_backward_sums", slice(1, 2))
    noted(window_attention, "plain_forward", slice(3))
    noted(window_attention, "plain_backward", slice(1, 4))
    stage = TinyVitStage(8, 32, depth=2, num_heads=2, window_size=4, downsample=PatchMerging)
    model = fast_blocks(nn.Sequential(MBConv(8, 8, 2.0, nn.GELU, 0.0), stage))
    by_group(model, 2)
    torch.compile(model.forward, dynamic=False)(torch.randn(2, 8, 18, 26)).sum().backward()
    assert len(read) == 2 * (8 + 2)  # norms, and attentions
    assert read[10:] == read[9::-1]


@pytest.fixture
def exact_float32(monkeypatch) -> None:
    """Compute float32 convolutions without TF32."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.mark.gpu
@pytest.mark.usefixtures("exact_float32", "torch_rng")
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_on_a_gpu_it_is_timms_function(compiled: bool) -> None:
    """Without drop-path, whose draws on a GPU differ in float64 and in compiled code."""
    model, fast = (each.cuda() for each in pair())
    norms = by_group(fast, 2, "cuda")
    for module in [*model.modules(), *fast.modules()]:
        if hasattr(module, "drop_prob"):
            module.drop_prob = 0.0
    images, grad = torch.randn(2, 1, 104, 168, device="cuda"), torch.randn(2, 6, device="cuda")
    wanted = results(model.double(), images.double(), grad.double())
    fast.forward = torch.compile(fast.forward, dynamic=False) if compiled else fast.forward
    found = results(fast, images, grad, norms)
    for name, value in wanted.items():
        assert (found[name] - value).norm() < 1e-4 * (value.norm() + 1e-2 * grad.norm()), name


@pytest.mark.gpu
@pytest.mark.usefixtures("exact_float32", "torch_rng")
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu_predictions_are_timms() -> None:
    model, fast = (each.cuda().eval() for each in pair())
    images = torch.randn(3, 1, 104, 168, device="cuda")
    with torch.no_grad():
        wanted, found = model.double()(images.double()), fast(images)
    assert (found - wanted).norm() < 1e-5 * wanted.norm()
