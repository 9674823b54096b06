"""Dropout by row: draws depend on the row's key alone; probabilities, scales; torch's generator is not used."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hms_dist.model.keyed_dropout import KeyedDropout, KeyedDropPath
from hms_dist.model.pass_rows import PassRows, Pieces, draw_words, whole_groups

Layer = KeyedDropout | KeyedDropPath
KINDS = [KeyedDropout, KeyedDropPath]
KEY = (7, 2, 5)
"""Seed, epoch and step."""


def layer_of(kind: type, p: float = 0.5, number: int = 3, **options: bool) -> Layer:
    return kind(p, number, PassRows(torch.device("cpu")), **options)


def begin(layer: Layer, places: Sequence[int], key: tuple[int, int, int] = KEY) -> None:
    """Begin a pass of the rows at these places; groups do not matter here."""
    layer.rows.begin(whole_groups(len(places), 1), draw_words(*key, places))


def ones(kind: type, num_rows: int, *, tokens: int = 40) -> Tensor:
    """Rows with many elements; for drop-path, which draws once for each token, rows with many tokens."""
    return torch.ones(num_rows, tokens, 3) if kind is KeyedDropout else torch.ones(num_rows * tokens, 3)


def by_row(result: Tensor, num_rows: int) -> Tensor:
    return result.reshape(num_rows, -1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_draws_the_same_wherever_it_is_computed(kind: type, rng: np.random.Generator) -> None:
    layer, num_rows = layer_of(kind), 12
    begin(layer, range(num_rows))
    whole = by_row(layer(ones(kind, num_rows)), num_rows)
    assert len({tuple(row.tolist()) for row in whole}) == num_rows
    order = rng.permutation(num_rows)
    begin(layer, order)
    assert torch.equal(by_row(layer(ones(kind, num_rows)), num_rows), whole[order])
    for places in ([11], [0, 1, 2], [9, 3], order[:7]):
        begin(layer, places)
        assert torch.equal(by_row(layer(ones(kind, len(places))), len(places)), whole[places])
    layer.rows.begin(Pieces(5, 8, (0, 3, 5), (True, False), (0, 1), 2), draw_words(*KEY, range(4, 9)))
    assert torch.equal(by_row(layer(ones(kind, 5)), 5), whole[4:9])  # parts of groups of eight on several ranks


@pytest.mark.parametrize("kind", KINDS)
def test_it_draws_again_what_it_drew(kind: type) -> None:
    layer = layer_of(kind)
    begin(layer, range(4))
    first = layer(ones(kind, 4))
    assert torch.equal(layer(ones(kind, 4)), first)  # as recomputed activations do
    begin(layer, range(4, 8))
    assert not torch.equal(layer(ones(kind, 4)), first)
    begin(layer, range(4))
    assert torch.equal(layer(ones(kind, 4)), first)
    assert torch.equal(layer_from(layer, kind)(ones(kind, 4)), first)


def layer_from(layer: Layer, kind: type) -> Layer:
    """Another layer with the same number and probability."""
    other = layer_of(kind)
    other.rows = layer.rows
    return other


@pytest.mark.parametrize("kind", KINDS)
def test_another_layer_seed_epoch_step_or_place_draws_otherwise(kind: type) -> None:
    seen = []
    for number, key, first in (
        (3, KEY, 0), (4, KEY, 0), (0, KEY, 0), (3, (8, 2, 5), 0), (3, (7, 3, 5), 0), (3, (7, 2, 6), 0), (3, KEY, 2),
    ):  # fmt: skip
        layer = layer_of(kind, number=number)
        begin(layer, range(first, first + 2), key)
        seen += [by_row(layer(ones(kind, 2, tokens=2000)), 2) > 0]
    rows = torch.cat(seen)
    assert len(rows) == 14
    for position, row in enumerate(rows):  # and independently: two of them agree in half of the elements
        agreeing = (rows[position + 1 :] == row).double().mean(1)
        assert ((agreeing - 0.5).abs() < 6 * 0.5 / len(row) ** 0.5).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("p", [0.05, 0.2, 0.5, 0.9])
def test_the_share_of_zeros_is_the_probability_and_the_mean_stays(
    kind: type, p: float, rng: np.random.Generator
) -> None:
    layer, num_rows, tokens = layer_of(kind, p), 200, 500
    begin(layer, range(num_rows), (int(rng.integers(2**32)), 0, 0))
    result = layer(ones(kind, num_rows, tokens=tokens)).double()
    drawn = result if kind is KeyedDropout else result[:, :1]
    if kind is KeyedDropPath:  # a token is kept or left out as a whole
        assert (result == drawn).all()
    table = by_row(drawn == 0, num_rows).double()

    def is_near(shares: Tensor, number: int) -> bool:
        return bool(((shares - p).abs() < 6 * (p * (1 - p) / number) ** 0.5).all())

    assert is_near(table.mean(), table.numel())
    assert is_near(table.mean(1), table.shape[1])  # of each row
    assert is_near(table.mean(0), table.shape[0])  # of each element
    kept = result[result != 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - p)), rtol=1e-6, atol=0)


def test_elements_and_rows_do_not_follow_each_other(rng: np.random.Generator) -> None:
    """Neighbours, in a row and across rows, are independent."""
    layer, num_rows = layer_of(KeyedDropout, 0.5), 300
    begin(layer, range(num_rows), (int(rng.integers(2**32)), 0, 0))
    zero = layer(torch.ones(num_rows, 512)) == 0
    for one, other in ((zero[:, 1:], zero[:, :-1]), (zero[1:], zero[:-1]), (zero[:, 256:], zero[:, :256])):
        both = (one & other).double().mean()
        assert abs(float(both) - 0.25) < 6 * (0.25 * 0.75 / one.numel()) ** 0.5


@pytest.mark.parametrize("shape", [(6,), (6, 5), (6, 5, 7), (6, 5, 3, 4)])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("torch_rng")
def test_values_and_gradients_of_inputs_of_any_shape(kind: type, shape: tuple[int, ...]) -> None:
    """Rows come first, or rows times tokens."""
    layer = layer_of(kind, 0.25)
    begin(layer, range(3))
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    mask = layer(torch.ones(shape, dtype=torch.float64))
    result = layer(x)
    assert result.dtype == x.dtype
    assert torch.equal(result, x * mask)
    (gradient,) = torch.autograd.grad(result.sum(), x)
    assert torch.equal(gradient, mask)
    assert layer(x.detach().bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("torch_rng")
def test_evaluation_and_a_probability_of_zero_are_the_identity(kind: type) -> None:
    x = torch.randn(6, 5)
    assert layer_of(kind).eval()(x) is x  # no pass need have begun
    assert layer_of(kind, 0.0)(x) is x


@pytest.mark.parametrize("p", [0.5, 1.0])
def test_drop_path_may_leave_out_the_scale(p: float) -> None:
    layer = layer_of(KeyedDropPath, p, scale_by_keep=False)
    begin(layer, range(8))
    assert set(layer(torch.ones(800, 2)).unique().tolist()) == ({0.0, 1.0} if p < 1 else {0.0})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("torch_rng")
def test_torchs_generator_is_neither_changed_nor_read(kind: type) -> None:
    layer = layer_of(kind)
    begin(layer, range(4))
    before = torch.get_rng_state()
    first = layer(ones(kind, 4))
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    assert torch.equal(layer(ones(kind, 4)), first)


def test_keys_of_rows_depend_on_seed_epoch_step_and_place_alone() -> None:
    keys = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    words = [tuple(row.tolist()) for key in keys for row in draw_words(*key, range(100))]
    assert len(set(words)) == len(words)
    for position in (0, 1):  # either half of the key distinguishes them
        assert len({word[position] for word in words}) == len(words)
    assert torch.equal(draw_words(*KEY, [5, 2]), draw_words(*KEY, range(8))[[5, 2]])


@pytest.mark.slow
@pytest.mark.usefixtures("no_compiler_cache", "torch_rng")
def test_compiled_layers_draw_the_same() -> None:
    rows = PassRows(torch.device("cpu"))
    model = nn.Sequential(KeyedDropout(0.3, 0, rows), KeyedDropPath(0.3, 1, rows))
    compiled = torch.compile(model.forward, dynamic=False)
    x = torch.randn(24, 5, 7)
    for places in ([0, 1, 2, 3], [6, 4, 7, 5], [9, 8, 1, 0]):  # one graph for all of them
        rows.begin(whole_groups(2, 2), draw_words(*KEY, places))
        wanted, found = model(x), compiled(x)
        assert torch.equal(wanted == 0, found == 0)
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=0)
