import hashlib

import numpy as np
import pytest

from tt_conv.applications.video_prediction import embedded_digits

SPLITS = ("train", "validation", "test")


def test_five_thousand_digits_in_disjoint_parts() -> None:
    parts = {split: [image.tobytes() for image in embedded_digits(split)[0]] for split in SPLITS}
    assert {split: len(images) for split, images in parts.items()} == {"train": 4000, "validation": 500, "test": 500}
    # All 5,000 images differ, so parts that shared one would have fewer together.
    assert len({image for images in parts.values() for image in images}) == 5000


@pytest.mark.parametrize(("split", "of_each"), [("train", 400), ("validation", 50), ("test", 50)])
def test_every_class_is_in_every_part(split: str, of_each: int) -> None:
    images, labels = embedded_digits(split)
    assert np.bincount(labels).tolist() == [of_each] * 10
    assert images.dtype == labels.dtype == np.uint8
    assert images.shape[1:] == (28, 28)


def test_the_digits_are_those_of_mnist() -> None:
    # SHA-256 of image 1 of MNIST's training set, its first zero, taken from the IDX file of the original.
    first_zero = "2d1c3087ac5f2bed7c4d54a1b33bf75d09f479ee63c0df2e0a4378f6e7e9ae66"
    images, labels = embedded_digits("train")
    assert labels[0] == 0
    assert hashlib.sha256(images[0].tobytes()).hexdigest() == first_zero


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match="split must be one of 'train', 'validation', 'test', got 'valid'"):
        embedded_digits("valid")
