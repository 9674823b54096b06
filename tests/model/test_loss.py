"""The loss against two independent formulas."""

import numpy as np
import pytest
import scipy.special
import torch

from hms_dist.model.loss import kl_rows, kl_sum


def drawn(rng: np.random.Generator, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and votes of few voters as probabilities: with zeros and ones."""
    votes = rng.multinomial(3, rng.dirichlet(np.full(6, 0.3), rows))
    return torch.tensor(rng.normal(0, 4, (rows, 6))), torch.tensor(votes / 3)


def test_equals_relative_entropy_and_its_gradient() -> None:
    logits, targets = drawn(np.random.default_rng(), 50)
    expected = scipy.special.rel_entr(targets.numpy(), scipy.special.softmax(logits.numpy(), axis=1)).sum(axis=1)
    np.testing.assert_allclose(kl_rows(logits, targets).numpy(), expected, rtol=1e-11, atol=1e-13)
    logits.requires_grad_()
    kl_sum(logits, targets).backward()
    torch.testing.assert_close(logits.grad, logits.detach().softmax(1) - targets, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_is_computed_in_float32_or_better(dtype: torch.dtype) -> None:
    logits, targets = drawn(np.random.default_rng(), 50)
    logits = logits.to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        loss = kl_sum(logits, targets)
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    expected = torch.nn.functional.kl_div(logits.double().log_softmax(1), targets, reduction="sum")
    torch.testing.assert_close(loss.double(), expected, rtol=2e-6, atol=0)


def test_is_zero_at_the_targets_and_finite_far_away() -> None:
    targets = torch.tensor([[1.0, 0, 0, 0, 0, 0], [0.5, 0.5, 0, 0, 0, 0]])
    assert kl_sum(torch.log(targets.clamp(min=1e-30)), targets).abs() < 1e-6
    assert kl_sum(torch.tensor([[-80.0, 80, 0, 0, 0, 0]]), targets[:1]) == 160
