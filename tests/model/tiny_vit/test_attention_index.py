"""The table of pairs of window attention is timm's."""

import pytest
import torch
from timm.models.tiny_vit import Attention

from hms_dist.core.errors import UserError
from hms_dist.model.build import ModelConfig, build
from hms_dist.model.tiny_vit.attention_index import fast_attention_index, pair_index


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 6), (5, 1), (7, 7), (4, 9), (12, 5)])
def test_it_equals_timms(height, width):
    expected = Attention(8, 4, 2, 1, (height, width)).attention_bias_idxs
    assert torch.equal(pair_index(height, width, torch.device("cpu")), expected)
    with fast_attention_index():
        assert torch.equal(Attention(8, 4, 2, 1, (height, width)).attention_bias_idxs, expected)


def test_timms_function_is_put_back():
    original = Attention._init_buffers
    with fast_attention_index():
        assert Attention._init_buffers is not original
    assert Attention._init_buffers is original
    with pytest.raises(UserError, match="no_such_option"):
        build(ModelConfig(name="tiny_vit_5m_224", weights="none", kwargs={"no_such_option": 1}), 0, 6, size=(64, 64))
    assert Attention._init_buffers is original


def test_a_built_model_has_timms_tables():
    built = build(ModelConfig(name="tiny_vit_5m_224", weights="none"), 3, 6, size=(64, 64))
    layers = [layer for layer in built.modules() if isinstance(layer, Attention)]
    assert layers
    for layer in layers:
        height, width = layer.resolution
        assert torch.equal(layer.attention_bias_idxs, pair_index(height, width, torch.device("cpu")))
        assert layer.attention_bias_idxs.dtype == torch.int64
