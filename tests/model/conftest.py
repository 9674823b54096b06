"""Fixtures of the model tests."""

from collections.abc import Iterator

import pytest


@pytest.fixture
def no_compiler_cache() -> Iterator[None]:
    """Do not reuse compiled graphs: the key of the compiler's cache does not include our operators.

    Its caches of C++ and Triton code are shared by all tests.
    """
    import torch._functorch.config
    import torch._inductor.config

    with (
        torch._inductor.config.patch(fx_graph_cache=False),
        torch._functorch.config.patch(enable_autograd_cache=False),
    ):
        yield
