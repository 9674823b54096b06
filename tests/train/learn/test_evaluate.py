"""Predictions of many rows at once, in smaller batches if they do not fit into the memory of the GPU."""

import pytest
import torch
from torch import Tensor, nn

from hms_dist.model.loss import LOSSES
from hms_dist.train.learn.evaluate import predict_in_memory, rows_at_once
from hms_dist.train.task import WholePicture


class Small(nn.Module):
    """A classifier that runs out of memory for more than `most` rows."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self.taken = most, list[int]()

    def forward(self, images: Tensor) -> Tensor:
        if len(images) > self.most:
            raise torch.OutOfMemoryError
        self.taken.append(len(images))
        return images.flatten(1)[:, :6]


def test_rows_that_do_not_fit_are_predicted_in_smaller_batches(torch_rng: torch.Generator) -> None:
    task, images = WholePicture(LOSSES["kl"]), torch.randn(11, 1, 2, 4, generator=torch_rng)
    whole, parts = Small(11), Small(3)
    assert torch.equal(predict_in_memory(task, parts, images), predict_in_memory(task, whole, images))
    assert whole.taken == [11]
    assert sum(parts.taken) == 11
    assert max(parts.taken) <= 3


def test_one_row_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        predict_in_memory(WholePicture(LOSSES["kl"]), Small(0), torch.zeros(2, 1, 2, 4))


@pytest.mark.parametrize(("group_size", "on_gpu"), [(1, 64), (6, 60), (8, 64), (24, 48), (64, 64), (100, 100)])
def test_a_gpu_predicts_many_rows_at_once_in_whole_groups(group_size: int, on_gpu: int) -> None:
    assert rows_at_once(group_size, torch.device("cuda")) == on_gpu
    assert rows_at_once(group_size, torch.device("cpu")) == group_size
