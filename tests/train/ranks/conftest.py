"""Fixtures of the tests with several ranks."""

import pytest


@pytest.fixture
def augment_file(tmp_path):
    """A recipe with every kind of augmentation, and mixup for half of the rows."""
    path = tmp_path / "augment.yaml"
    path.write_text(
        """
        reverse_probability: 0.5
        steps:
          - {class_path: TimeShift}
          - {class_path: OneOf, init_args: {choices: [{class_path: GaussNoise}, {class_path: MotionBlur}]}}
          - {class_path: MixUp, init_args: {alpha: 1.0}}
          - {class_path: CutMix, init_args: {probability: 0.3}}
          - {class_path: CoarseDropout, init_args: {height: 8, width: 8}}
        """
    )
    return path
