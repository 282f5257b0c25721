"""Moving-MNIST: digits that drift over a black frame and bounce off its walls, made on the fly."""

from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import SupportsIndex, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tt_conv.applications.data.idx import idx_digits
from tt_conv.applications.data.mnist import embedded_digits
from tt_conv.applications.data.sequences import SequenceDataset
from tt_conv.applications.data.splits import SPLITS, Split, check_split
from tt_conv.checks import positive_int

DIGIT_SIZE = 28


class MovingMNIST(SequenceDataset):
    """Sequences of moving digits, each one a function of (split, seed, index) alone.

    A digit starts anywhere within the frame, moves in a random direction by ``speed`` times the free range
    (frame side minus digit side) per frame, and bounces as in the generator of Srivastava et al.: where a
    step would cross a wall the digit stops at the wall for that frame and that component of its velocity
    turns round. It is drawn at whole pixels, the position rounded down. Where digits overlap, the brighter
    pixel is shown. ``MovingMNIST(digits=2)`` is the published protocol: 64 x 64 pixels, speed 0.1.

    Parameters
    ----------
    split : {"train", "validation", "test"}
        Which digits appear; those of different splits are disjoint.
    length : int
        Number of sequences.
    frames : int
        Frames per sequence, T.
    size : int or (int, int)
        Height and width of a frame in pixels, one number for both.
    digits : int
        Number of digits in a sequence.
    speed : float
        Step per frame as a fraction of the free range of either axis, from 0 to 1.
    seed : int
        Another seed gives other sequences.
    digit_size : int
        Side of a digit in pixels; digits are resized from 28 with antialiasing.
    idx_folder : path, optional
        IDX files of MNIST, Fashion-MNIST or another such set, whose images move; by default the digits that come
        with the package.
    fresh : bool
        In training (:meth:`draw`), every epoch gets sequences of its own instead of the same ones again.

    Raises
    ------
    FileNotFoundError
        If an IDX file is missing.
    TypeError
        If an argument is not of its type.
    ValueError
        If an argument is out of its range, or a digit does not fit into the frame.

    Examples
    --------
    >>> dataset = MovingMNIST("test", length=3, frames=5, digits=1)
    >>> len(dataset), dataset[0].shape
    (3, torch.Size([5, 1, 64, 64]))
    >>> bool(torch.equal(dataset[2], dataset[2]))
    True

    References
    ----------
    N. Srivastava, E. Mansimov, R. Salakhutdinov: Unsupervised learning of video representations using
    LSTMs. ICML 2015.
    """

    def __init__(
        self,
        split: Split = "train",
        length: int = 10_000,
        *,
        frames: int = 20,
        size: int | Sequence[int] = 64,
        digits: int = 2,
        speed: float = 0.1,
        seed: int = 0,
        digit_size: int = DIGIT_SIZE,
        idx_folder: Path | str | None = None,
        fresh: bool = False,
    ) -> None:
        check_split(split)
        sides = tuple(size) if isinstance(size, tuple | list) else (size, size)
        if len(sides) != 2:
            raise ValueError(f"size must be one number or (height, width), got {size}")
        height, width = (positive_int(side, "size") for side in sides)
        length, frames = positive_int(length, "length"), positive_int(frames, "frames")
        digits, digit_size = positive_int(digits, "digits"), positive_int(digit_size, "digit_size")
        if min(height, width) < digit_size:
            raise ValueError(
                f"frames of {height} x {width} pixels cannot hold digits of {digit_size} x {digit_size}: "
                "take a larger size or a smaller digit_size"
            )
        _check_type(speed, Real, "speed must be a number from 0 to 1")
        if not 0 <= speed <= 1:
            raise ValueError(f"speed is a fraction of the free range per frame, from 0 to 1, got {speed}")
        _check_type(seed, Integral, "seed must be an int")
        if seed < 0:
            raise ValueError(f"seed must be 0 or more, got {seed}")
        self.split: Split = split
        self.length = length
        self.frames = frames
        self.size = (height, width)
        self.digits = digits
        self.speed = speed
        self.seed = seed
        self.digit_size = digit_size
        self.fresh = fresh
        images = embedded_digits(split)[0] if idx_folder is None else idx_digits(idx_folder, split)
        self._images = _resized(images, digit_size)

    def __len__(self) -> int:
        return self.length

    def sequence(self, number: int) -> Tensor:
        return self._made(number)

    def draw(self, index: SupportsIndex, epoch: int) -> Tensor:
        """The sequence of an epoch of training: with ``fresh``, number ``epoch * length + index`` of endlessly many."""
        number = self.checked_index(index)
        return self._made(epoch * self.length + number if self.fresh else number)

    def sequences(self, numbers: Iterable[int], device: torch.device | str = "cpu") -> Tensor:
        """Several sequences at once, drawn on a device, which needs nothing but their digits and positions.

        Parameters
        ----------
        numbers : iterable of int
            Which ones, as :meth:`sequence` numbers them; there are more than ``length``.
        device : torch.device or str
            Where they are drawn.

        Returns
        -------
        Tensor
            ``[B, T, 1, H, W]`` on that device, the same values on every device.

        Examples
        --------
        >>> dataset = MovingMNIST(frames=4)
        >>> bool(torch.equal(dataset.sequences([3, 5])[1], dataset.sequence(5)))
        True
        """
        digits, paths = zip(*map(self._drawn_by_lot, numbers), strict=True)
        images = torch.from_numpy(self._images[np.array(digits)]).to(device)
        corners = torch.from_numpy(self._corners(np.array(paths))).to(device)
        side = self.digit_size
        # Rows and columns of a frame as those of a digit, [B, digits, T, H] and [B, digits, T, W].
        rows, columns = (
            torch.arange(length, device=device) - corners[..., axis, None] for axis, length in enumerate(self.size)
        )
        inside = [(places >= 0) & (places < side) for places in (rows, columns)]
        batch, digit = (torch.arange(length, device=device) for length in images.shape[:2])
        drawn = images[
            batch[:, None, None, None, None],
            digit[:, None, None, None],
            rows.clamp(0, side - 1).unsqueeze(-1),
            columns.clamp(0, side - 1).unsqueeze(-2),
        ]
        return (drawn * (inside[0].unsqueeze(-1) & inside[1].unsqueeze(-2))).amax(1).unsqueeze(2)

    def _made(self, number: int) -> Tensor:
        canvas = np.zeros((self.frames, *self.size), np.float32)
        for digit, corners in zip(*self._drawn_by_lot(number), strict=True):
            _draw_digit(canvas, self._images[digit], self._corners(corners))
        return torch.from_numpy(canvas).unsqueeze(1)

    def _drawn_by_lot(self, number: int) -> tuple[list[int], list[NDArray[np.float64]]]:
        """Which digits are in a sequence, and for each its path ``[T, 2]`` in the unit box."""
        # Only uniform doubles are drawn: their stream, unlike that of the other distributions, is not
        # expected to change between releases of NumPy.
        random = np.random.default_rng([self.seed, SPLITS.index(self.split), number]).random((self.digits, 4))
        digits, paths = [], []
        for which, row, column, turn in random:
            angle = 2 * np.pi * turn
            velocity = self.speed * np.array([np.sin(angle), np.cos(angle)])
            digits.append(int(which * len(self._images)))
            paths.append(bouncing_path(np.array([row, column]), velocity, self.frames))
        return digits, paths

    def _corners(self, path: NDArray[np.float64]) -> NDArray[np.int64]:
        """Top and left of a digit, in whole pixels, where a path in the unit box has it."""
        return (path * (np.array(self.size) - self.digit_size)).astype(int)


def bouncing_path(start: NDArray[np.float64], velocity: NDArray[np.float64], frames: int) -> NDArray[np.float64]:
    """Positions within the unit box of a point that stops at a wall for one frame, then turns round.

    Parameters
    ----------
    start, velocity : array [axes]
        The position in the first frame, from 0 to 1, and the step per frame.
    frames : int
        Number of positions.

    Returns
    -------
    array [frames, axes]
        Positions from 0 to 1.
    """
    position, velocity = start.copy(), velocity.copy()
    path = np.empty((frames, len(start)))
    for frame in range(frames):
        path[frame] = position
        position += velocity
        velocity[(position <= 0) | (position >= 1)] *= -1
        position.clip(0, 1, out=position)
    return path


def _check_type(value: object, expected: type, rule: str) -> None:
    if isinstance(value, bool) or not isinstance(value, expected):
        raise TypeError(f"{rule}, got {value!r}")


def _draw_digit(canvas: NDArray[np.float32], image: NDArray[np.float32], corners: NDArray[np.int64]) -> None:
    side = len(image)
    for frame, (top, left) in zip(canvas, corners, strict=True):
        place = frame[top : top + side, left : left + side]
        np.maximum(place, image, out=place)


def _resized(images: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
    scaled = torch.from_numpy(images).float().div_(255)
    if images.shape[1:] != (side, side):
        scaled = F.interpolate(scaled.unsqueeze(1), size=(side, side), mode="bilinear", antialias=True).squeeze(1)
        scaled.clamp_(0, 1)  # the weights of a pixel may add up to a rounding more than one
    return cast(NDArray[np.float32], scaled.numpy())
