"""Convert a network so that its result for a row does not depend on passes, ranks or the state of random generators.

Batch norms compute statistics by group, and dropout and stochastic depth draw by row. Training forward passes then
check that nothing else is random, and that rows affect each other only in the norms.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from hms_dist.core.errors import UserError
from hms_dist.model.group_norms import GroupBatchNorm, GroupNorms, group_batch_norms, replace_modules
from hms_dist.model.keyed_dropout import KeyedDropout, KeyedDropPath
from hms_dist.model.pass_rows import PassRows, draw_words, whole_groups

Forward = Callable[[nn.Module, Tensor], Tensor]
"""Function that calls a network with images [rows, channels, height, width]."""
PROBE_ROWS, PROBE_GROUP = 4, 2
"""Rows of the passes of `check_rows`, and rows of a group in them."""


def convert(model: nn.Module, rows: PassRows) -> None:
    """Replace norms and random layers of `model`, in place; the names of its state dict do not change.

    `rows`: holds the rows of each pass. Raises UserError for a norm that cannot be computed by group.
    """
    group_batch_norms(model, rows)
    found: dict[nn.Module, nn.Module] = {}
    module: Any
    for module in model.modules():
        if type(module) is nn.Dropout and module.p > 0:
            found[module] = KeyedDropout(module.p, len(found), rows)
        elif type(module) is DropPath and (module.drop_prob or 0) > 0:
            rate = float(module.drop_prob or 0)
            found[module] = KeyedDropPath(rate, len(found), rows, scale_by_keep=module.scale_by_keep)
    replace_modules(model, found)
    for replaced, keyed in found.items():
        keyed.train(replaced.training)
    for module in model.modules():  # fused attention draws its dropout from torch's generator
        if getattr(module, "fused_attn", False) and isinstance(getattr(module, "attn_drop", None), KeyedDropout):
            module.fused_attn = False


@torch.no_grad()
def check_rows(name: str, model: nn.Module, rows: PassRows, call: Forward, pictures: Tensor) -> None:
    """Check by training forward passes that `model` works by rows; `pictures` [1, channels, height, width] give the
    shape and the dtype, any float dtype.

    A dropout that the model's forward function applies before its classifier is replaced by a keyed one. Raises
    UserError, naming the layer, if anything else is random, if a random layer is used twice, or if rows affect each
    other outside of norms.
    """
    generator = torch.Generator().manual_seed(0)
    shape = (PROBE_ROWS, *pictures.shape[1:])
    inputs = torch.randn(shape, generator=generator).to(pictures)
    with _probe_pass(model, rows):
        if _uses_generators(lambda: call(model, inputs)):
            _key_head_dropout(name, model, rows, lambda: call(model, inputs))
        random_layer = _random_layer(model, lambda: call(model, inputs))
        if random_layer:
            raise UserError(f"model.name: {name} {random_layer}; set its rate to 0 or choose another model")
        twice = _used_twice(model, lambda: call(model, inputs))
        if twice:
            raise UserError(
                f"model.name: {name} uses its layer {twice} twice, so its draws would repeat; choose another model"
            )
        rows_mix = _rows_mix(model, rows, call, inputs, generator)
    if rows_mix:
        raise UserError(f"model.name: {name} mixes the rows of a batch outside of batch norm; choose another model")


def _rows_mix(model: nn.Module, rows: PassRows, call: Forward, inputs: Tensor, generator: torch.Generator) -> bool:
    """Whether answers depend on rows of other groups, or, with fixed statistics in all norms, on any other row."""
    changes = torch.randn(inputs.shape, generator=generator).to(inputs)
    every = torch.arange(len(inputs))

    def moves(row: int, base: Tensor, others: Tensor) -> bool:
        changed = inputs.clone()
        changed[row] += changes[row]
        answers = call(model, changed).float()[others]
        return not torch.allclose(answers, base[others], rtol=1e-3, atol=1e-3 * float(base.abs().max()))

    base, last = call(model, inputs).float(), len(inputs) - 1
    if moves(last, base, every[every // PROBE_GROUP != last // PROBE_GROUP]):
        return True
    with _fixed_norms(model) as are_all_fixed:
        base = call(model, inputs).float()
        size = 1 if are_all_fixed else PROBE_GROUP
        if any(moves(row, base, every[every // size != row // size]) for row in every.tolist()):
            return True
        return are_all_fixed and _gradients_mix(model, rows, call, inputs[:PROBE_GROUP])


@torch.enable_grad()
def _gradients_mix(model: nn.Module, rows: PassRows, call: Forward, inputs: Tensor) -> bool:
    """Whether the output of a row has a gradient with respect to another row."""
    rows.begin(whole_groups(1, len(inputs)), draw_words(0, 0, 0, range(len(inputs))))
    inputs = inputs.clone().requires_grad_()
    answers = call(model, inputs).float()
    for row in range(len(inputs)):
        (gradient,) = torch.autograd.grad(answers[row].square().sum(), inputs, retain_graph=True)
        of_rows = gradient.abs().flatten(1).amax(dim=1)
        if bool((of_rows[torch.arange(len(inputs)) != row] > 1e-3 * of_rows[row]).any()):
            return True
    return False


@contextmanager
def _fixed_norms(model: nn.Module) -> Iterator[bool]:
    """Normalise with the statistics of the last pass inside the block. Yields whether every norm keeps statistics."""
    training = [norm for norm in model.modules() if isinstance(norm, GroupBatchNorm) and norm.training]
    kept = [(norm, norm.running_mean, norm.running_var) for norm in training if norm.running_mean is not None]
    for norm, _, _ in kept:
        norm.running_mean, _, norm.running_var = norm.statistics.mean(dim=1).unbind()
        norm.training = False
    try:
        yield len(kept) == len(training)
    finally:
        for norm, mean, variance in kept:
            norm.running_mean, norm.running_var, norm.training = mean, variance, True


@contextmanager
def _probe_pass(model: nn.Module, rows: PassRows) -> Iterator[None]:
    """Begin a pass of PROBE_ROWS; scales of zero, which would hide branches, are set to one inside the block."""
    scales = [
        parameter
        for module in model.modules()
        for parameter_name, parameter in module.named_parameters(recurse=False)
        if parameter.dim() == 1 and parameter_name != "bias" and not parameter.any()
    ]
    for scale in scales:
        scale.fill_(1)
    norms = GroupNorms(model, rows)
    rows.begin(whole_groups(PROBE_ROWS // PROBE_GROUP, PROBE_GROUP), draw_words(0, 0, 0, range(PROBE_ROWS)))
    norms.begin_step()
    norms.begin_pass()
    try:
        yield
    finally:
        norms.cancel_step()
        for scale in scales:
            scale.zero_()


def generator_states() -> tuple[Any, ...]:
    """Return the states of torch's, NumPy's and Python's random generators, to be compared with `==`."""
    states = [torch.random.get_rng_state().numpy().tobytes(), random.getstate()]
    numpy_state: Any = np.random.get_state()  # noqa: NPY002
    states += [numpy_state[1].tobytes(), *numpy_state[2:]]
    if torch.cuda.is_available():
        states += [torch.cuda.get_rng_state().numpy().tobytes()]
    return tuple(states)


def _uses_generators(forward: Callable[[], object]) -> bool:
    before = generator_states()
    forward()
    return generator_states() != before


def _key_head_dropout(name: str, model: nn.Module, rows: PassRows, forward: Callable[[], object]) -> None:
    """Replace `functional.dropout` that the model's forward applies to the classifier's input by a keyed dropout."""
    backbone: Any = getattr(model, "backbone", model)
    rate = getattr(backbone, "drop_rate", 0.0)
    classifier = backbone.get_classifier() if hasattr(backbone, "get_classifier") else None
    if not rate or not isinstance(classifier, nn.Module):
        return
    watched = _DropoutCalls()
    given: list[Tensor] = []
    handle = classifier.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    with watched:
        forward()
    handle.remove()
    if len(watched.results) != 1 or not any(tensor is watched.results[0] for tensor in given):
        return
    backbone.drop_rate = 0.0
    keyed = KeyedDropout(rate, 1 + sum(isinstance(m, KeyedDropout | KeyedDropPath) for m in model.modules()), rows)
    classifier.register_forward_pre_hook(_HeadDropout(keyed, classifier))


class _HeadDropout:
    """A hook: keyed dropout of the classifier's input in training. Not a module, so it adds no name to the state
    dict."""

    def __init__(self, keyed: KeyedDropout, classifier: nn.Module) -> None:
        self._keyed, self._classifier = keyed, classifier

    def __call__(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (self._keyed(inputs[0]), *inputs[1:]) if self._classifier.training else inputs


class _DropoutCalls(TorchFunctionMode):
    """Records the results of `functional.dropout`."""

    def __init__(self) -> None:
        super().__init__()
        self.results: list[Tensor] = []

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if function is functional.dropout:
            self.results.append(result)
        return result


def _random_layer(model: nn.Module, forward: Callable[[], object]) -> str:
    """Describe the layer of `model` that uses a random generator in a forward pass; empty if none does."""
    if not _uses_generators(forward):
        return ""
    found: list[str] = []
    before: dict[nn.Module, Any] = {}
    handles = []
    for layer_name, module in model.named_modules():

        def end(module: nn.Module, _: Any, __: Any, layer: str = layer_name) -> None:
            if generator_states() != before[module]:
                found.append(f"{layer or 'itself'} ({type(module).__name__})")

        handles.append(module.register_forward_pre_hook(lambda module, _: before.update({module: generator_states()})))
        handles.append(module.register_forward_hook(end))
    forward()
    for handle in handles:
        handle.remove()
    return f"draws random numbers in {found[0] if found else 'its forward function'} that cannot be drawn by row"


def _used_twice(model: nn.Module, forward: Callable[[], object]) -> str:
    """Return the name of a random layer that a forward pass uses more than once; empty if there is none."""
    counts: dict[str, int] = {}
    handles = []
    for layer_name, module in model.named_modules():
        if isinstance(module, KeyedDropout | KeyedDropPath):

            def count(*_: Any, layer: str = layer_name) -> None:
                counts[layer] = counts.get(layer, 0) + 1

            handles.append(module.register_forward_pre_hook(count))
    forward()
    for handle in handles:
        handle.remove()
    return next((layer for layer, number in counts.items() if number > 1), "")
