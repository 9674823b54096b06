"""The losses against independent formulas."""

import numpy as np
import pytest
import scipy.special
import torch
from torch.nn import functional

from hms_dist.model.loss import LOSSES, kl_rows


def drawn(rng: np.random.Generator, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and votes of few voters as probabilities: with zeros and ones."""
    votes = rng.multinomial(3, rng.dirichlet(np.full(6, 0.3), rows))
    return torch.tensor(rng.normal(0, 4, (rows, 6))), torch.tensor(votes / 3)


def test_kl_equals_relative_entropy_and_its_gradient(rng: np.random.Generator) -> None:
    logits, targets = drawn(rng, 50)
    expected = scipy.special.rel_entr(targets.numpy(), scipy.special.softmax(logits.numpy(), axis=1)).sum(axis=1)
    np.testing.assert_allclose(kl_rows(logits, targets).numpy(), expected, rtol=1e-11, atol=1e-13)
    logits.requires_grad_()
    kl_rows(logits, targets).sum().backward()
    torch.testing.assert_close(logits.grad, logits.detach().softmax(1) - targets, rtol=1e-10, atol=1e-12)


def test_every_loss_equals_torch_in_float64(rng: np.random.Generator) -> None:
    logits, targets = drawn(rng, 50)
    one_by_one = functional.binary_cross_entropy_with_logits
    expected = {
        "kl": [functional.kl_div(x.log_softmax(0), p, reduction="sum") for x, p in zip(logits, targets, strict=True)],
        "bce": [one_by_one(x, p) for x, p in zip(logits, targets, strict=True)],
        "ce": functional.cross_entropy(logits, targets, reduction="none").unbind(),
        "bce_known": [one_by_one(x, p) for x, p in zip(logits, targets, strict=True)],
    }
    assert expected.keys() == LOSSES.keys()
    for name, loss in LOSSES.items():
        torch.testing.assert_close(
            loss.rows(logits, targets), torch.stack(list(expected[name])), rtol=1e-10, atol=1e-12
        )


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_computed_in_float32_or_better(name: str, dtype: torch.dtype, rng: np.random.Generator) -> None:
    logits, targets = drawn(rng, 50)
    logits = logits.to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        found = (LOSSES[name].rows(logits, targets), LOSSES[name].probabilities(logits))
    exact = (LOSSES[name].rows(logits.double(), targets), LOSSES[name].probabilities(logits.double()))
    for one, other in zip(found, exact, strict=True):
        assert one.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=2e-6)


def test_kl_is_zero_at_the_targets_and_finite_far_away() -> None:
    targets = torch.tensor([[1.0, 0, 0, 0, 0, 0], [0.5, 0.5, 0, 0, 0, 0]])
    assert kl_rows(torch.log(targets.clamp(min=1e-30)), targets).abs().max() < 1e-6
    assert kl_rows(torch.tensor([[-80.0, 80, 0, 0, 0, 0]]), targets[:1]) == 160


@pytest.mark.parametrize("name", LOSSES)
def test_a_net_at_its_optimum_stands_for_the_targets(name: str, rng: np.random.Generator) -> None:
    """Where the gradient of the loss vanishes, the probabilities are the labels."""
    targets = torch.tensor(rng.dirichlet(np.ones(6), 20))
    logits = torch.logit(targets) if name.startswith("bce") else targets.log()
    logits.requires_grad_()
    LOSSES[name].rows(logits, targets).sum().backward()
    assert logits.grad is not None
    assert logits.grad.abs().max() < 1e-12
    torch.testing.assert_close(LOSSES[name].probabilities(logits.detach()), targets, rtol=1e-9, atol=1e-12)


def test_probabilities_sum_to_one_even_of_a_row_that_is_nothing() -> None:
    for loss in (loss for loss in LOSSES.values() if loss.target == "shares"):
        assert loss.probabilities(torch.full((1, 6), -300.0)).sum() == pytest.approx(1)


def test_only_known_classes_count(rng: np.random.Generator) -> None:
    """The mean over known cells, row by row; no gradient reaches the others; 0 for a row that knows nothing."""
    logits = torch.tensor(rng.normal(0, 4, (20, 6))).requires_grad_()
    targets = torch.tensor(rng.choice([0.0, 1.0, 0.3, np.nan], (20, 6)))
    targets[0] = np.nan
    found = LOSSES["bce_known"].rows(logits, targets)
    found.sum().backward()
    known = targets.isfinite()
    assert logits.grad is not None
    assert torch.equal(logits.grad != 0, known)
    assert found[0] == 0
    for row in range(1, 20):
        mine = known[row]
        expected = functional.binary_cross_entropy_with_logits(logits[row, mine], targets[row, mine])
        assert float(found[row]) == pytest.approx(float(expected) if mine.any() else 0.0, rel=1e-10)
