"""One frame of a clip: how it is stored, and how players show it."""

from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple, cast

import av
import numpy as np
from numpy.typing import NDArray


class Pose(NamedTuple):
    """What is done with stored pixels to show them: first transposed, then turned upside down, then mirrored."""

    transposed: bool = False
    upside_down: bool = False
    mirrored: bool = False

    def applied(self, pixels: NDArray) -> NDArray:
        """Pixels [H, W, ...] as they are shown."""
        if self.transposed:
            pixels = pixels.swapaxes(0, 1)
        return pixels[:: -1 if self.upside_down else 1, :: -1 if self.mirrored else 1]

    def words(self) -> str:
        """What was done, for notes."""
        # A quarter turn clockwise brings the left column to the top row: a transposition, then mirroring.
        return {
            (False, True, True): "turned by 180 degrees",
            (True, False, True): "turned by 90 degrees clockwise",
            (True, True, False): "turned by 90 degrees counterclockwise",
            (False, False, True): "mirrored",
            (False, True, False): "turned upside down",
            (True, False, False): "mirrored and turned by 90 degrees counterclockwise",
            (True, True, True): "mirrored and turned by 90 degrees clockwise",
        }[self]


UPRIGHT = Pose()


@dataclass
class Frame:
    """A decoded frame.

    Parameters
    ----------
    stored : av.VideoFrame
        As the file holds it.
    pose : Pose
        How it is turned to be shown.
    aspect : Fraction
        Width over height of a stored pixel.
    """

    stored: av.VideoFrame
    pose: Pose = UPRIGHT
    aspect: Fraction = Fraction(1)

    @classmethod
    def of(cls, pixels: NDArray[np.uint8]) -> "Frame":
        """The frame of pixels [H, W, C], gray or RGB."""
        gray = pixels.shape[2] == 1
        plain = np.ascontiguousarray(pixels[..., 0] if gray else pixels)
        return cls(av.VideoFrame.from_ndarray(plain, format="gray" if gray else "rgb24"))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width as shown, in square pixels."""
        height, width = self.stored.height, max(1, round(self.stored.width * self.aspect))
        return (width, height) if self.pose.transposed else (height, width)

    @property
    def is_gray(self) -> bool:
        """Whether it has no colours."""
        return self.stored.format.name.startswith("gray")

    def pixels(self, size: tuple[int, int], channels: int) -> NDArray[np.uint8]:
        """The pixels [H, W, C] as shown, in a size (height, width), by averaging over areas; gray or RGB."""
        height, width = size[::-1] if self.pose.transposed else size
        plain = self.stored.reformat(
            width=width, height=height, format="gray" if channels == 1 else "rgb24", interpolation="AREA"
        ).to_ndarray()
        shown = self.pose.applied(plain[..., None] if channels == 1 else plain)
        return cast(NDArray[np.uint8], np.ascontiguousarray(shown))
