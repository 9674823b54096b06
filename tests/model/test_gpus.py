"""The environment variable that replaces the fast operators by torch's own."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import timm
from hms_dist.model import gpus
from hms_dist.model.convolutions import fast_convolutions
from hms_dist.model.tiny_vit.blocks import fast_blocks
model = timm.create_model("tiny_vit_5m_224")
before = [type(module) for module in model.modules()]
fast_blocks(model)
fast_convolutions(model)
print(gpus.are_fast(), before == [type(module) for module in model.modules()])
"""


@pytest.mark.parametrize(("value", "printed"), [("1", "False True"), ("", "True False")])
def test_a_variable_switches_the_fast_operators_off(repository, value: str, printed: str) -> None:
    environment = {**os.environ, "HMS_DIST_PLAIN_OPERATORS": value}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=repository, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[0] == printed
