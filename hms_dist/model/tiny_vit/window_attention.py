"""The window attention of timm's TinyViT without padding, for grids that are not a multiple of the window size.

timm pads the grid of tokens with zeros to whole windows, and computes attention to and from the padding. After
LayerNorm and projection all padded tokens have the same key and value, and the output of padded queries is discarded.
Therefore only tokens of the grid are queries here, and the padded keys of a window are one key
(`window_bias.padding_bias`). Outputs and gradients equal timm's.

The gradient of the biases is summed over all windows of the batch before it is scattered into the table.

The operator `hms_dist::window_attention` uses the plain arithmetic of this file on a CPU, and the kernels of
`window_kernels` on a GPU.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from hms_dist.model.operators import operator
from hms_dist.model.tiny_vit.window_bias import padding_bias, row_difference_bias
from hms_dist.model.tiny_vit.windows import WindowClass, window_classes


class Biases(NamedTuple):
    """Biases that a block adds to its attention scores."""

    pairs: Tensor
    """Biases of pairs of tokens in a window (heads, 2 size - 1, size^2), any float dtype, from
    `row_difference_bias`."""
    padding: Tensor
    """Bias of a token and its window's padding (heads, height, width), same dtype, from `padding_bias`; -inf without
    padding."""


def window_biases(tables: Tensor, size: int, height: int, width: int) -> list[Biases]:
    """Compute the biases of several blocks on one grid of height x width tokens; `tables` [blocks, heads, size^2].

    The biases have the dtype of the tables. All blocks together need as many kernel launches as one.
    """
    with torch.autocast(tables.device.type, enabled=False):
        table = tables.flatten(0, 1)
        pairs = row_difference_bias(table, size)
        if height % size or width % size:
            padding = padding_bias(table, size, height, width).to(table.dtype)
        else:
            padding = table.new_full((len(table), height, width), -torch.inf)
        both = (torch.unflatten(biases, 0, tables.shape[:2]).unbind() for biases in (pairs, padding))
        return [Biases(*of_block) for of_block in zip(*both, strict=True)]


def window_attention(qkv: Tensor, biases: Biases, padding: Tensor) -> Tensor:
    """Compute softmax attention of every token to the tokens of its window, and to the window's padding.

    `qkv` (batch, height, width, heads, 3, dims): queries, keys and values of the tokens. `padding` (heads, 3, dims):
    the projection of a padded token; its query is not used. Returns (batch, height, width, heads, dims) in the dtype of
    `qkv`.
    """
    size = (biases.pairs.shape[1] + 1) // 2
    out, _ = torch.ops.hms_dist.window_attention(qkv, biases.pairs, padding.to(qkv.dtype), biases.padding, size)
    return out


def _forward(qkv: Tensor, bias: Tensor, padding: Tensor, pad_bias: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Compute the output, and the log-sum-exp of each query's scores (batch, heads, height * width)."""
    if qkv.is_cuda:
        from hms_dist.model.tiny_vit import window_kernels  # needs Triton

        return window_kernels.forward(qkv, bias, padding, pad_bias, size)
    return plain_forward(qkv, bias, padding, pad_bias, size)


def _forward_shapes(qkv: Tensor, bias: Tensor, padding: Tensor, pad_bias: Tensor, size: int) -> tuple[Tensor, Tensor]:
    batch, height, width, heads, _, dims = qkv.shape
    lse = qkv.new_empty(batch, heads, height * width, dtype=torch.promote_types(qkv.dtype, torch.float32))
    return qkv.new_empty(batch, height, width, heads, dims), lse


def _backward(
    grad: Tensor, qkv: Tensor, bias: Tensor, padding: Tensor, pad_bias: Tensor, out: Tensor, lse: Tensor, size: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute the gradients of qkv, bias, padding and pad_bias."""
    if qkv.is_cuda:
        from hms_dist.model.tiny_vit import window_kernels

        return window_kernels.backward(grad, qkv, bias, padding, pad_bias, out, lse, size)
    return plain_backward(grad, qkv, bias, padding, pad_bias, out, lse, size)


def _backward_shapes(
    grad: Tensor, qkv: Tensor, bias: Tensor, padding: Tensor, pad_bias: Tensor, out: Tensor, lse: Tensor, size: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    like = (
        torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in (qkv, bias, padding, pad_bias)
    )
    return tuple(like)  # type: ignore[return-value]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.size = inputs
    ctx.save_for_backward(*tensors, *output)
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    return (*torch.ops.hms_dist.window_attention_backward(grad.contiguous(), *ctx.saved_tensors, ctx.size), None)


operator("window_attention", _forward, _forward_shapes, _differentiate, _setup)
operator("window_attention_backward", _backward, _backward_shapes)


def plain_forward(qkv: Tensor, bias: Tensor, padding: Tensor, pad_bias: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Compute the operator in plain torch, for any dtype and device; the reference of the kernels.

    Returns the output, and the log-sum-exp of each query's scores (batch, heads, height * width).
    """
    batch, height, width, heads, _, dims = qkv.shape
    out, lse = qkv.new_empty(batch, height, width, heads, dims), qkv.new_empty(batch, heads, height * width)
    for part in window_classes(height, width, size):
        query, key, value = _tokens(qkv, part).unbind(-2)
        scores, pad_scores = _scores(query, key, bias, padding, pad_bias, part, size)
        total = torch.logaddexp(scores.logsumexp(-1), pad_scores)[..., None]
        result = (scores - total).exp() @ value + (pad_scores[..., None] - total).exp() * padding[:, 2, None]
        _write(out, result, part)
        _write(_grid(lse, height), total[..., 0], part)
    return out, lse


def plain_backward(
    grad: Tensor, qkv: Tensor, bias: Tensor, padding: Tensor, pad_bias: Tensor, out: Tensor, lse: Tensor, size: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute the gradients in plain torch, as FlashAttention-2 (Dao, 2023), with one additional, padded key.

    Shapes of the arguments as `window_attention`; gradients of qkv, bias, padding and pad_bias in their shapes.
    """
    d_qkv = qkv.new_empty(qkv.shape)
    d_bias, d_padding, d_pad_bias = (tensor.new_zeros(tensor.shape) for tensor in (bias, padding, pad_bias))
    scale = qkv.shape[-1] ** -0.5
    for part in window_classes(qkv.shape[1], qkv.shape[2], size):
        query, key, value = _tokens(qkv, part).unbind(-2)
        d_out = _tokens(grad, part)
        total = _tokens(_grid(lse, qkv.shape[1]), part)
        scores, pad_scores = _scores(query, key, bias, padding, pad_bias, part, size)
        shares, pad_shares = (scores - total[..., None]).exp(), (pad_scores - total).exp()
        delta = (d_out * _tokens(out, part)).sum(-1)
        d_scores = shares * (d_out @ value.mT - delta[..., None])
        d_pad_scores = pad_shares * ((d_out @ padding[:, 2, :, None])[..., 0] - delta)
        d_query = scale * (d_scores @ key + d_pad_scores[..., None] * padding[:, 1, None])
        d_key, d_value = scale * d_scores.mT @ query, shares.mT @ d_out
        _write(d_qkv, torch.stack([d_query, d_key, d_value], dim=-2), part)
        d_pairs = d_scores.sum((0, 1, 2)).flatten(1)
        d_bias.view(len(bias), -1).index_add_(1, _pairs(part, size, bias).flatten(), d_pairs)
        d_padding[:, 1] += scale * (d_pad_scores[..., None] * query).sum((0, 1, 2, 4))
        d_padding[:, 2] += (pad_shares[..., None] * d_out).sum((0, 1, 2, 4))
        _write(d_pad_bias.movedim(0, -1)[None], d_pad_scores.sum(0, keepdim=True), part)
    return d_qkv, d_bias, d_padding, d_pad_bias


def _scores(
    query: Tensor, key: Tensor, bias: Tensor, padding: Tensor, pad_bias: Tensor, part: WindowClass, size: int
) -> tuple[Tensor, Tensor]:
    """Compute scores of the tokens (batch, down, across, heads, tokens, tokens), and of the padding, without the last
    axis."""
    scaled = query * query.shape[-1] ** -0.5
    scores = scaled @ key.mT + bias.flatten(1)[:, _pairs(part, size, bias)]
    pad_scores = (scaled @ padding[:, 1, :, None])[..., 0] + _tokens(pad_bias.movedim(0, -1)[None], part)
    return scores, pad_scores


def _grid(lse: Tensor, height: int) -> Tensor:
    """(batch, heads, height * width) -> (batch, height, width, heads)."""
    return torch.unflatten(lse, 2, (height, -1)).permute(0, 2, 3, 1)


def _pairs(part: WindowClass, size: int, like: Tensor) -> Tensor:
    """Index of the bias of each pair of tokens (query, key) in a head of `row_difference_bias`; the key's column comes
    first."""
    token = torch.arange(part.height * part.width, device=like.device)
    row, column = token // part.width, token % part.width
    return ((row - row[:, None] + size - 1) * size + column) * size + column[:, None]


def _view(grid: Tensor, part: WindowClass) -> Tensor:
    """View `grid` (batch, height, width, heads, ...) as windows (batch, down, across, heads, rows, columns, ...)."""
    rows, columns = part.num_down * part.height, part.num_across * part.width
    region = grid[:, part.top : part.top + rows, part.left : part.left + columns]
    across = torch.unflatten(region, 2, (part.num_across, part.width))
    windows = torch.unflatten(across, 1, (part.num_down, part.height))
    return windows.movedim((1, 3, 5), (1, 2, 3))


def _tokens(grid: Tensor, part: WindowClass) -> Tensor:
    return _view(grid, part).flatten(4, 5)


def _write(grid: Tensor, tokens: Tensor, part: WindowClass) -> None:
    _view(grid, part).copy_(torch.unflatten(tokens, 4, (part.height, part.width)))
