"""Throw random strings, shapes and options at conv_einsum, for as long as one likes.

    python tests/fuzz_conv_einsum.py --seconds 60 --seed 0

A case fails if the call raises anything but `ConvEinsumError`, refuses what the specification accepts,
accepts what the specification refuses, or gives another value, shape or gradient than the oracle.
Every failure is printed as a call that can be repeated.
"""

import argparse
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from torch import Tensor

if __name__ == "__main__":  # run as a script: the repository's root is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.conv_einsum.paths import random_path
from tests.conv_einsum.random_problems import Problem, grid_size, random_problem
from tests.oracle.conv_einsum import conv_einsum as oracle
from tests.oracle.conv_einsum_validity import judge
from tt_conv import conv_einsum, conv_einsum_expression
from tt_conv.conv_einsum.errors import ConvEinsumError

TOKENS = [*"abchwio" * 3, *",,,||  ", "->", "->", "...", *"-.>_1(αé\0\n"]
OPTIMIZERS = ("auto", "auto", "optimal", "greedy", "eager", False)


@dataclass
class Case:
    """One call, in words that repeat it."""

    problem: Problem
    optimize: object
    seed: int
    dtype: torch.dtype = torch.float64
    # In which order the dimensions lie in memory, per operand.
    layouts: tuple[tuple[int, ...], ...] = ()
    trained: tuple[int, ...] = ()
    # None is a plain call, otherwise an expression with these constants.
    constants: tuple[int, ...] | None = None

    def __str__(self) -> str:
        options = "".join(f", {name}={value!r}" for name, value in self.problem.options.items())
        operands = "".join(f", randn{shape}" for shape in self.problem.shapes)
        form = "conv_einsum" if self.constants is None else f"conv_einsum_expression[constants {self.constants}]"
        return (
            f"{form}({self.problem.equation!r}{operands}{options}, optimize={self.optimize!r})"
            f" in {self.dtype}, memory order {self.layouts}, gradients of {self.trained}"
        )

    def operands(self) -> list[Tensor]:
        operands = []
        for number, operand in enumerate(self.problem.operands(self.seed, self.dtype)):
            order = self.layouts[number]
            back = sorted(range(len(order)), key=order.__getitem__)
            laid_out = operand.permute(order).contiguous().permute(back)
            operands.append(laid_out.detach().requires_grad_(number in self.trained))
        return operands

    def run(self, operands: list[Tensor]) -> Tensor:
        problem = self.problem
        if self.constants is None:
            return conv_einsum(problem.equation, *operands, optimize=self.optimize, **problem.options)
        given = [o if number in self.constants else o.shape for number, o in enumerate(operands)]
        expression = conv_einsum_expression(
            problem.equation, *given, constants=self.constants, optimize=self.optimize, **problem.options
        )
        return expression(*(o for number, o in enumerate(operands) if number not in self.constants))


def draw(seed: int) -> Case:
    """Draw one case: half of them valid, most others one edit away from it, the rest garbage."""
    random = Random(seed)
    problem = _draw(random)
    while _is_large(problem):
        problem = _draw(random)
    optimize = random.choice(OPTIMIZERS)
    if random.random() < 0.3 and problem.shapes:
        optimize = random_path(len(problem.shapes), random)
    numbers = range(len(problem.shapes))
    constants = None
    if random.random() < 0.25:
        constants = tuple(number for number in numbers if random.random() < 0.4)
    trained = tuple(n for n in numbers if n not in (constants or ()) and random.random() < 0.7)
    return Case(
        problem,
        optimize,
        seed,
        random.choice((torch.float64,) * 6 + (torch.float32, torch.complex128)),
        tuple(_layout(len(shape), random) for shape in problem.shapes),
        trained if random.random() < 0.5 else (),
        constants,
    )


def _layout(rank: int, random: Random) -> tuple[int, ...]:
    if random.random() < 0.5:
        return tuple(range(rank))
    return tuple(random.sample(range(rank), rank))


def _draw(random: Random) -> Problem:
    kind = random.random()
    if kind < 0.1:
        return _garbage(random)
    problem = random_problem(random, 5_000)
    if kind > 0.55:
        for _ in range(random.choice((1, 1, 1, 2, 3))):
            _spoil(problem, random)
    return problem


def _is_large(problem: Problem) -> bool:
    """Whether the oracle would take long, should the problem be valid."""
    verdict = judge(problem.equation, problem.shapes, **problem.options)
    return not verdict.refused and grid_size(problem) > 20_000


def _garbage(random: Random) -> Problem:
    equation = "".join(random.choices(TOKENS, k=random.randint(0, 16)))
    count = random.choice((equation.count(",") + 1, random.randint(0, 4)))
    shapes = [tuple(random.choices((0, 1, 2, 3, 5), k=random.randint(0, 4))) for _ in range(count)]
    return Problem(equation, shapes, _garbage_options(random) if random.random() < 0.3 else {})


def _garbage_options(random: Random) -> dict:
    values = (
        0,
        1,
        2,
        3,
        -1,
        100,
        1.5,
        True,
        None,
        "same",
        "full",
        "valid",
        "",
        (1, 2),
        (0, -1),
        [1, 1],
        (),
        {},
    )
    name = random.choice(("stride", "padding", "dilation", "padding", "padding_mode"))
    if name == "padding_mode":
        return {name: random.choice(("zeros", "circular", "reflect", None, 1))}
    if random.random() < 0.5:
        return {name: random.choice(values)}
    modes = random.sample("abchwi|.", random.randint(0, 2))
    return {name: {mode: random.choice(values) for mode in modes}}


def _spoil(problem: Problem, random: Random) -> None:
    """Change one thing of a valid problem; now and then it stays valid."""
    what = random.choice(("modes", "modes", "equation", "size", "size", "rank", "count", "option", "option", "space"))
    if what == "modes":
        _spoil_modes(problem, random)
    elif what == "equation":
        place = random.randint(0, len(problem.equation))
        new = random.choice(("", random.choice(TOKENS), *random.choices(problem.equation or "a", k=2)))
        problem.equation = problem.equation[:place] + new + problem.equation[place + random.randint(0, 1) :]
    elif what == "space":
        place = random.randint(0, len(problem.equation))
        problem.equation = problem.equation[:place] + " " + problem.equation[place:]
    elif what == "count":
        if problem.shapes and random.random() < 0.5:
            problem.shapes.pop(random.randrange(len(problem.shapes)))
        else:
            problem.shapes.append(random.choice((*problem.shapes, (2,))))
    elif what == "option":
        convolved = problem.convolved
        options = _garbage_options(random)
        for name, value in options.items():
            if isinstance(value, dict) and convolved and random.random() < 0.7:
                options[name] = {random.choice(convolved): each for each in value.values()}
        problem.options.update(options)
    elif problem.shapes:
        number = random.randrange(len(problem.shapes))
        shape = list(problem.shapes[number])
        place = random.randint(0, len(shape))
        if what == "rank" or place == len(shape):
            shape[place : place + random.randint(0, 1)] = random.choice(([], [2]))
        else:
            shape[place] = random.choice((0, 1, 2, 3, 5, 9))
        problem.shapes[number] = tuple(shape)


def _spoil_modes(problem: Problem, random: Random) -> None:
    """Move, drop, double or swap modes, with the equation well formed and the dimensions counted right."""
    left, _, right = problem.equation.partition("->")
    output, _, convolved = right.partition("|")
    terms = left.split(",")
    if len(terms) != len(problem.shapes):  # spoiled before
        return
    number = random.randrange(len(terms))
    place = random.randint(0, len(terms[number]))
    what = random.choice(("drop", "double", "output", "convolved", "swap", "swap"))
    if what == "swap":  # such as `W, x` for `x, W`
        other = random.randrange(len(terms))
        terms[number], terms[other] = terms[other], terms[number]
        shapes = problem.shapes
        shapes[number], shapes[other] = shapes[other], shapes[number]
    elif what == "output":
        output = output.replace(random.choice(output or "a"), random.choice(("", "a")))
    elif what == "convolved":
        convolved += random.choice(left.replace(",", "").replace(".", "") or "a")
    elif "." not in terms[number] and len(terms[number]) == len(problem.shapes[number]):
        keep = place if what == "double" else place + 1
        doubled = terms[number][:place], terms[number][keep:]
        letter = random.choice(terms[number] or "a") if what == "double" else ""
        terms[number] = letter.join(doubled)
        shape = problem.shapes[number]
        problem.shapes[number] = (*shape[:place], *([2] if letter else []), *shape[keep:])
    problem.equation = ",".join(terms) + "->" + output + ("|" + convolved if convolved else "")


def failure(case: Case) -> str | None:
    """Run one case; say what is wrong with it, if anything."""
    problem = case.problem
    verdict = judge(problem.equation, problem.shapes, **problem.options)
    operands = case.operands()
    try:
        value = case.run(operands)
    except ConvEinsumError as error:
        if verdict.valid:
            return f"refused, but valid: {error}"
        shown = problem.equation, repr(problem.equation)[1:-1]
        return None if any(text in str(error) for text in shown) else f"the equation is not in: {error}"
    except Exception:
        return traceback.format_exc()
    if verdict.refused:
        return f"accepted, but {'; '.join(verdict.refused)}"
    try:
        return _difference(case, value, operands, bool(verdict.beyond_oracle))
    except Exception:
        return traceback.format_exc()


def _difference(case: Case, value: Tensor, operands: list[Tensor], beyond_oracle: bool) -> str | None:
    """Hold the value, and the gradients if any, against the oracle's."""
    wide = torch.promote_types(case.dtype, torch.float64)
    twins = [operand.detach().to(wide).requires_grad_(operand.requires_grad) for operand in operands]
    expected = _expected(case, twins, beyond_oracle)
    if expected is None:
        return None
    if value.dtype != case.dtype:
        return f"the result is of type {value.dtype}"
    _assert_close(value, expected)
    if case.trained:
        weight = torch.randn(value.shape, dtype=wide, generator=torch.Generator().manual_seed(1))
        gradients = torch.autograd.grad(value, [operands[n] for n in case.trained], weight.to(case.dtype))
        wanted = torch.autograd.grad(expected, [twins[n] for n in case.trained], weight)
        for gradient, other in zip(gradients, wanted, strict=True):
            _assert_close(gradient, other)
    return None


def _assert_close(value: Tensor, expected: Tensor) -> None:
    tolerance = 1e-4 if value.dtype == torch.float32 else 1e-10
    largest = float(expected.detach().abs().max()) if expected.numel() else 0.0
    torch.testing.assert_close(value, expected, rtol=tolerance, atol=tolerance * (1 + largest), check_dtype=False)


def _expected(case: Case, operands: list[Tensor], beyond_oracle: bool) -> Tensor | None:
    """The right value; None where nothing says what it is."""
    if not beyond_oracle:
        return oracle(case.problem.equation, *operands, **case.problem.options)
    if case.problem.convolved:
        return None
    try:
        return torch.einsum("".join(case.problem.equation.split()).rstrip("|"), *operands)
    except (RuntimeError, ValueError):  # such as a letter outside ASCII
        return None


def kind_of(case: Case) -> str:
    """Whether the specification accepts, refuses or leaves open a case."""
    verdict = judge(case.problem.equation, case.problem.shapes, **case.problem.options)
    return "valid" if verdict.valid else "refused" if verdict.refused else "open"


def main() -> int:
    """Fuzz until the time is up; the exit status says whether anything failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0, help="the first case's seed; the next ones count up")
    parser.add_argument("--stop-after", type=int, default=10, help="failures after which to stop")
    arguments = parser.parse_args()
    kinds: Counter[str] = Counter()
    failures = 0
    end = time.monotonic() + arguments.seconds
    seed = arguments.seed
    while time.monotonic() < end and failures < arguments.stop_after:
        case = draw(seed)
        kinds[kind_of(case)] += 1
        wrong = failure(case)
        if wrong:
            failures += 1
            print(f"--- seed {seed}\n{case}\n{wrong}\n", flush=True)
        seed += 1
    print(f"{seed - arguments.seed} cases ({dict(kinds)}), {failures} failures; the next seed is {seed}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
