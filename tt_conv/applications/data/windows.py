"""A data set of equally long windows of clips, and what all clips must have in common."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import SupportsIndex, TypeVar

import numpy as np
from torch import Tensor

from tt_conv.applications.data.clips import Clip, fitted, windows_of
from tt_conv.applications.data.errors import SHOWN, Broken, UnusableFile, check_broken, without_broken
from tt_conv.applications.data.sequences import SequenceDataset
from tt_conv.checks import positive_int

T = TypeVar("T")


class ClipWindows(SequenceDataset):
    """Windows of ``frames`` frames out of clips.

    Parameters
    ----------
    clips : sequence of Clip
        Where the windows are cut.
    frames : int
        Frames of a window, T.
    step : int
        Take every ``step``-th frame.
    stride : int, optional
        Frames between the starts of windows; by default they do not overlap.
    size : (int, int), optional
        Height and width; needed where clips differ.
    channels : {1, 3}, optional
        Gray or RGB; needed where clips differ.
    random : bool
        In training (:meth:`draw`), shift every window to a random place in its clip.
    seed : int
        Of these shifts.
    broken : {"refuse", "skip"}
        What happens to clips that are too short for one window.
    notes : sequence of str
        What was found while the clips were opened.
    hint : str
        Added to the message on clips that are too short.

    Raises
    ------
    ValueError
        If no clip is long enough, one is too short and not to be skipped, or they differ where they must not.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        frames: int,
        *,
        step: int = 1,
        stride: int | None = None,
        size: tuple[int, int] | None = None,
        channels: int | None = None,
        random: bool = False,
        seed: int = 0,
        broken: Broken = "refuse",
        notes: Sequence[str] = (),
        hint: str = "",
    ) -> None:
        self.frames, self.step = positive_int(frames, "frames"), positive_int(step, "step")
        self.span = (self.frames - 1) * self.step + 1
        self.stride = self.span if stride is None else positive_int(stride, "stride")
        check_broken(broken)
        if channels not in (None, 1, 3):
            raise ValueError(f"channels must be 1 (gray) or 3 (RGB), got {channels}")
        if seed < 0:
            raise ValueError(f"seed must be 0 or more, got {seed}")
        self.random, self.seed = random, seed
        said = list(notes)
        self.clips = self._long_enough(clips, broken, said, hint)
        self.notes = said
        self.size = size or _common([clip.size for clip in self.clips], self.clips, "frame sizes", "size")
        self.channels = channels or _common(
            [c.channels for c in self.clips], self.clips, "numbers of channels", "channels"
        )
        self._windows = windows_of(self.clips, self.span, self.stride)

    def __len__(self) -> int:
        return len(self._windows)

    def sequence(self, number: int) -> Tensor:
        clip, first = self._windows[number]
        return self._read(clip, first)

    def draw(self, index: SupportsIndex, epoch: int) -> Tensor:
        """A window at a random place of the same clip, a function of (seed, epoch, index) alone."""
        number = self.checked_index(index)
        clip, first = self._windows[number]
        if self.random:
            places = self.clips[clip].length - self.span + 1
            first = int(np.random.default_rng([self.seed, epoch, number]).random() * places)
        return self._read(clip, first)

    def name(self, number: int) -> str:
        """The file and the frames of a window."""
        clip, first = self._windows[self.checked_index(number)]
        start = self.clips[clip].first + first
        return f"{self.clips[clip].name}, frames {start + 1} to {start + self.span}"

    def _read(self, clip: int, first: int) -> Tensor:
        return fitted(self.clips[clip].read(first, self.frames, self.step), self.size, self.channels)

    def _long_enough(self, clips: Sequence[Clip], broken: Broken, notes: list[str], hint: str) -> list[Clip]:
        short = [clip for clip in clips if clip.length < self.span]
        enough = [clip for clip in clips if clip.length >= self.span]
        if short and (broken == "refuse" or not enough):
            named = "; ".join(f"{clip.name} has {clip.length}" for clip in short[:SHOWN])
            skip = ", or leave them out with broken=skip" if enough else ""
            raise ValueError(
                f"{len(short)} of {len(clips)} clips are shorter than the {self.span} frames needed: {named}"
                f"{' ...' if len(short) > SHOWN else ''}; ask for fewer frames{skip}{hint}"
            )
        if not clips:
            raise ValueError("there are no clips to cut sequences from")
        if short:
            notes.append(f"left out {len(short)} clips of fewer than {self.span} frames: {listed(short)}")
        return enough


def opened(items: Sequence[T], open_one: Callable[[T], Sequence[Clip]], broken: Broken, notes: list[str]) -> list[Clip]:
    """Clips of all items, opened side by side; broken ones are refused, all named at once, or noted and left out."""
    from concurrent.futures import ThreadPoolExecutor

    def attempt(item: T) -> Sequence[Clip] | UnusableFile:
        try:
            return open_one(item)
        except UnusableFile as error:
            return error
        except PermissionError as error:
            remedy = "change its permissions, or leave it out with broken=skip"
            return UnusableFile(error.filename or item, "it may not be read", remedy)
        except FileNotFoundError as error:
            return UnusableFile(error.filename or item, "a link to a file that is not there", "remove the link")

    check_broken(broken)
    # Decoders leave Python's lock, so threads are enough.
    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(attempt, items))
    return [clip for clips in without_broken(results, broken, notes) for clip in clips]


def by_note(found: Sequence[tuple[str, str]]) -> list[str]:
    """Notes, each with the names of the clips that it is about."""
    names: dict[str, list[str]] = defaultdict(list)
    for name, note in found:
        names[note].append(name)
    return [
        f"{', '.join(sorted(about)[:SHOWN])}{f' ... ({len(about)} clips)' if len(about) > SHOWN else ''}: {note}"
        for note, about in names.items()
    ]


def listed(clips: Sequence[Clip]) -> str:
    """The names of the first few clips."""
    return ", ".join(clip.name for clip in clips[:SHOWN]) + (" ..." if len(clips) > SHOWN else "")


def _common(values: Sequence[T], clips: Sequence[Clip], what: str, option: str) -> T:
    examples: dict[T, list[str]] = defaultdict(list)
    for value, clip in zip(values, clips, strict=True):
        examples[value].append(clip.name)
    if len(examples) > 1:
        named = "; ".join(f"{value}: {names[0]} and {len(names) - 1} more" for value, names in examples.items())
        raise ValueError(f"the clips have {len(examples)} {what} ({named}): bring them to one with {option}")
    return values[0]
