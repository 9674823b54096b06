"""Fixtures of the model tests."""

from collections.abc import Iterator

import pytest


@pytest.fixture
def compiled_anew() -> Iterator[None]:
    """Code that the compiler kept for a graph would be taken for today's: its key does not include our operators.

    What it keeps for a text of C++ or of Triton serves all tests.
    """
    import torch._functorch.config
    import torch._inductor.config

    with (
        torch._inductor.config.patch(fx_graph_cache=False),
        torch._functorch.config.patch(enable_autograd_cache=False),
    ):
        yield
