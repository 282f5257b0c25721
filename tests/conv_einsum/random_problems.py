"""Random valid conv-einsums: any roles, any meeting of modes, any options, but small."""

from dataclasses import dataclass, field
from random import Random
from string import ascii_letters

import torch
from torch import Tensor

from tests.oracle.conv_einsum import geometry, parse
from tests.oracle.conv_einsum_validity import judge

LARGEST_GRID = 30_000


@dataclass
class Problem:
    """An equation, the shapes of its operands and the options of the call."""

    equation: str
    shapes: list[tuple[int, ...]]
    options: dict = field(default_factory=dict)

    @property
    def terms(self) -> list[str]:
        return self.equation.partition("->")[0].split(",")

    @property
    def output(self) -> str:
        return self.equation.partition("->")[2].partition("|")[0]

    @property
    def convolved(self) -> str:
        return self.equation.partition("|")[2]

    def operands(self, seed: int = 0, dtype: torch.dtype = torch.float64) -> list[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return [torch.randn(shape, dtype=dtype, generator=generator) for shape in self.shapes]


def random_problem(
    random: Random, largest_grid: int = LARGEST_GRID, *, convolved: bool = False, ellipsis: bool = True
) -> Problem:
    """Draw a valid problem whose formula has at most `largest_grid` products.

    With `convolved` at least one mode is convolved; without `ellipsis` every mode has a letter.
    """
    while True:
        problem = _draw(random, convolved, ellipsis)
        valid = judge(problem.equation, problem.shapes, **problem.options).valid
        if valid and grid_size(problem) <= largest_grid:
            return problem


def grid_size(problem: Problem) -> int:
    """How many products the formula sums, all outputs together."""
    parsed = parse(problem.equation, [len(shape) for shape in problem.shapes])
    options = {key: value for key, value in problem.options.items() if key != "padding_mode"}
    modes = geometry(parsed, problem.shapes, **options)
    size = 1
    counted = set()
    for number, (names, shape) in enumerate(zip(parsed.inputs, problem.shapes, strict=True)):
        for name, extent in zip(names, shape, strict=True):
            if name not in modes:
                size *= 1 if name in counted else extent
                counted.add(name)
            elif number == modes[name].feature:
                size *= modes[name].output_size
            else:
                size *= extent
    return size


def _draw(random: Random, must_convolve: bool, ellipsis: bool) -> Problem:
    count = _weighted(random, {2: 6, 3: 6, 4: 4, 5: 2} if must_convolve else {1: 1, 2: 6, 3: 6, 4: 4, 5: 2})
    first = random.randrange(len(ascii_letters))
    letters = [*ascii_letters[first:], *ascii_letters[:first]]
    counts = {1: 6, 2: 5, 3: 2, 4: 1} if must_convolve else {0: 3, 1: 6, 2: 5, 3: 2, 4: 1}
    convolved = letters[: _weighted(random, counts) if count > 1 else 0]
    # Sizes of 1 leave strides undefined and modes interchangeable: now and then most sizes are.
    ones = random.random() < 0.15
    ordinary = letters[len(convolved) :][: random.randint(0 if convolved else 1, 2 + count)]
    terms: list[list[str]] = [[] for _ in range(count)]
    shapes: list[list[int]] = [[] for _ in range(count)]
    for mode in ordinary:
        size = 1 if ones and random.random() < 0.6 else random.choice((1, 2, 2, 3))
        for number in random.sample(range(count), _weighted(random, {2: 5, 1: 3, 3: 2}) % count + 1):
            terms[number].append(mode)
            shapes[number].append(size)
    for mode in convolved:
        carriers = sorted(random.sample(range(count), min(count, _weighted(random, {2: 6, 3: 3, 4: 1}))))
        for number in carriers:
            terms[number].append(mode)
            feature, kernel = random.randint(1, 7), random.choice((1, 2, 2, 3, 3, 4))
            size = feature if number == carriers[0] else kernel
            shapes[number].append(1 if ones and random.random() < 0.6 else size)
    for number in range(count):
        order = random.sample(range(len(terms[number])), len(terms[number]))
        terms[number] = [terms[number][i] for i in order]
        shapes[number] = [shapes[number][i] for i in order]
    output = convolved + [mode for mode in ordinary if random.random() < 0.6 and any(mode in t for t in terms)]
    random.shuffle(output)
    written = ["".join(term) for term in terms]
    out = "".join(output)
    if ellipsis and random.random() < 0.15:
        shared = tuple(random.randint(1, 3) for _ in range(random.randint(0, 2)))
        with_dots = random.sample(range(count), random.randint(1, count))
        written = [("..." if number in with_dots else "") + term for number, term in enumerate(written)]
        shapes = [[*(shared if number in with_dots else ()), *shape] for number, shape in enumerate(shapes)]
        out = "..." + out
    equation = ",".join(written) + "->" + out + ("|" + "".join(convolved) if convolved else "")
    return Problem(equation, [tuple(shape) for shape in shapes], _draw_options(random, convolved))


def _weighted(random: Random, weights: dict[int, int]) -> int:
    """Choose a key; unlike `random.choices`, Hypothesis's generators heed the weights."""
    place = random.randrange(sum(weights.values()))
    for value, weight in weights.items():
        place -= weight
        if place < 0:
            return value
    raise AssertionError


def _draw_options(random: Random, convolved: list[str]) -> dict:
    options: dict = {}
    if not convolved:
        return options

    def some(draw: object) -> object:
        """The same for all modes, or a dict for some of them."""
        if random.random() < 0.5:
            return draw(False)
        return {mode: draw(True) for mode in random.sample(convolved, random.randint(1, len(convolved)))}

    if random.random() < 0.35:
        options["stride"] = some(lambda _: random.randint(1, 3))
    if random.random() < 0.35:
        options["dilation"] = some(lambda _: random.randint(1, 3))
    if random.random() < 0.8:
        options["padding"] = some(
            lambda in_dict: random.choice(
                (
                    random.randint(0, 4),
                    "valid",
                    "full",
                    "same",
                    (random.randint(0, 5), random.randint(0, 5)) if in_dict else "full",
                )
            )
        )
    if random.random() < 0.35:
        options["padding_mode"] = random.choice(("zeros", "circular", "circular"))
    return options
