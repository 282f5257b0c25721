"""Where a model holds its parts: in its tree of modules, and past it in lists, dicts, tuples, objects and functions.

``copy.deepcopy`` follows containers and objects, but takes functions and weak references as they are: in the copy of
a network whose ``lambda`` calls a layer, the original's layer is called. So functions that reach a part are made anew.
"""

import copy
import functools
import itertools
import logging
import types
import weakref
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

# An optimizer beside a model holds its parameters, and no one calls a layer through it.
_LEAVES = (
    *(str, bytes, bytearray, int, float, complex, type(None), type, range, slice),
    *(types.ModuleType, types.BuiltinFunctionType, types.CodeType, logging.Logger, np.ndarray, np.generic),
    *(Tensor, torch.dtype, torch.device, torch.Generator, torch.optim.Optimizer),
)
_SEQUENCES = (list, tuple, set, frozenset, deque)
_TREE = ("_modules", "_parameters", "_buffers")


def parts(value: Any) -> Iterator[tuple[str, Any]]:
    """Return what a value holds directly, each with what leads to it from the value."""
    if isinstance(value, nn.Module):
        for key, part in vars(value).items():
            if key in _TREE and isinstance(part, dict):
                yield from ((f".{name}", each) for name, each in part.items())
            else:
                yield f".{key}", part
        return
    if isinstance(value, _LEAVES):
        return
    if isinstance(value, dict):
        yield from ((f"[{key!r:.40}]", part) for key, part in value.items())
        yield from ((f" (the key {key!r:.40})", key) for key in value)
    elif isinstance(value, _SEQUENCES):
        yield from ((f"[{number}]", part) for number, part in enumerate(value))
    elif isinstance(value, weakref.ref):
        yield "()", value()
    elif isinstance(value, types.MethodType):
        yield ".__self__", value.__self__
    elif isinstance(value, functools.partial):
        yield from ((f"({name})", part) for name, part in zip(("function", "", ""), _partial(value), strict=True))
    elif isinstance(value, types.FunctionType):
        names = value.__code__.co_freevars
        yield from ((f" (its {name})", cell.cell_contents) for name, cell in _filled_cells(names, value))
        yield from ((" (a default)", part) for part in (value.__defaults__, value.__kwdefaults__, vars(value)))
    else:
        yield from ((f".{name}", part) for name, part in _attributes(value))


def find(root: Any, wanted: Callable[[Any], bool]) -> Iterator[tuple[str, Any]]:
    """Return the wanted objects with the paths to them; what is wanted is not entered."""
    seen: dict[int, Any] = {}
    waiting = [("", root)]
    while waiting:
        path, value = waiting.pop()
        for step, part in parts(value):
            if wanted(part):
                yield (path + step).lstrip("."), part
            elif id(part) not in seen:
                seen[id(part)] = part  # kept, so that no other object gets its id
                waiting.append((path + step, part))


def past_the_tree(model: nn.Module) -> dict[int, list[str]]:
    """Return the places past the tree of modules at which modules and parameters are held, by their ids.

    Modules that the tree does not hold are among them, and what these hold.
    """
    found: dict[int, list[str]] = {}
    inside = {id(module) for module in model.modules()}
    seen: dict[int, Any] = {id(model): model}
    waiting: list[tuple[str, Any]] = [("", model)]
    while waiting:
        path, value = waiting.pop()
        by_tree: set[int] = set()
        if id(value) in inside:
            by_tree = {id(part) for key in _TREE for part in vars(value)[key].values()}
        for step, part in parts(value):
            if isinstance(part, nn.Module | nn.Parameter) and id(part) not in by_tree:
                found.setdefault(id(part), []).append((path + step).lstrip("."))
            if id(part) not in seen:
                seen[id(part)] = part
                waiting.append((path + step, part))
    return found


def copied(model: nn.Module) -> nn.Module:
    """Return a deep copy, also of a model that holds results of its last call, such as states or a hook's kernel.

    Raises
    ------
    TypeError
        If something in the model cannot be copied.
    """
    # PyTorch copies leaves only; what was computed is copied without its history.
    computed = [t for module in model.modules() for t in _tensors(vars(module)) if not t.is_leaf]
    memo: dict[int, object] = {id(t): t.detach().clone() for t in computed}
    original = {id(part): part for module in model.modules() for part in (module, *module._parameters.values())}
    original = {key: part for key, part in original.items() if part is not None}

    def is_original(part: Any) -> bool:
        return id(part) in original

    try:
        made = copy.deepcopy(model, memo)

        def anew(content: Any) -> Any:
            reaches = is_original(content) or next(find(content, is_original), None) is not None
            return copy.deepcopy(content, memo) if reaches else content

        copies = {key: memo[key] for key in original if key in memo}
        made = _Substitution(copies, anew).of(made)
    except Exception as error:
        raise TypeError(
            f"this {type(model).__name__} can't be copied, and the original is never changed: {error}. Take what "
            "copy.deepcopy refuses (open files, locks, loggers) out of the model first"
        ) from error
    left = next(find(made, is_original), None)
    if left is not None:
        raise TypeError(
            f"this {type(model).__name__} can't be copied, and the original is never changed: {left[0]} of the copy is "
            "still a part of the original. Hold it in a plain attribute or a list"
        )
    return made


def replaced_in(model: nn.Module, table: Mapping[nn.Module, nn.Module], everywhere: bool = True) -> nn.Module:
    """Put modules in the places of others, wherever the model holds them, and return the model.

    Parameters
    ----------
    model : nn.Module
    table : mapping
        Old module -> new module.
    everywhere : bool
        Not in its tree of modules only, but also past it.
    """
    by_id = {id(old): new for old, new in table.items()}
    if everywhere:
        result: nn.Module = _Substitution(by_id).of(model)
        return result
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if id(child) in by_id:
                parent._modules[name] = by_id[id(child)]
    return by_id.get(id(model), model)


def _tensors(value: object, depth: int = 4) -> Iterator[Tensor]:
    """Find the tensors in what a module holds, however they are nested."""
    if isinstance(value, Tensor):
        yield value
    elif depth and isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _tensors(part, depth - 1)


class _Substitution:
    """Puts objects in the places of others: containers are changed in place, what cannot be changed is made anew.

    Parameters
    ----------
    table : mapping of int to object
        Id of an object -> what takes its place.
    of_function : callable
        What is done first with what a function holds.
    """

    def __init__(self, table: Mapping[int, Any], of_function: Callable[[Any], Any] = lambda content: content) -> None:
        self.table, self.of_function = table, of_function
        self.done: dict[int, tuple[Any, Any]] = {}
        self.cells: dict[int, tuple[Any, types.CellType]] = {}

    def of(self, value: Any) -> Any:
        """Return what takes the place of a value: most often itself."""
        if id(value) in self.table:
            return self.table[id(value)]
        if isinstance(value, _LEAVES):
            return value
        if id(value) not in self.done:
            self.done[id(value)] = (value, value)  # for what holds itself
            self.done[id(value)] = (value, self._made(value))
        return self.done[id(value)][1]

    def _made(self, value: Any) -> Any:
        if isinstance(value, dict):
            return self._dict(value)
        if isinstance(value, _SEQUENCES):
            return self._sequence(value)
        if isinstance(value, weakref.ref):
            target = value()
            new = self.table.get(id(target), target)
            return value if new is target else weakref.ref(new)
        if isinstance(value, types.MethodType):
            return self._method(value)
        if isinstance(value, functools.partial):
            old = _partial(value)
            function, arguments, keywords = (self.of(part) for part in old)
            changed = function is not old[0] or any(a is not b for a, b in zip(arguments, old[1], strict=True))
            return functools.partial(function, *arguments, **keywords) if changed else value
        if isinstance(value, functools._lru_cache_wrapper):
            function = self.of(value.__wrapped__)
            options = value.cache_parameters()
            return value if function is value.__wrapped__ else functools.lru_cache(**options)(function)
        if isinstance(value, types.FunctionType):
            return self._function(value)
        for name, part in list(_attributes(value)):
            new = self.of(part)
            if new is not part:
                if name in getattr(value, "__dict__", {}):
                    vars(value)[name] = new
                else:
                    object.__setattr__(value, name, new)
        return value

    def _dict(self, value: dict[Any, Any]) -> dict[Any, Any]:
        new = [(self.of(key), self.of(part)) for key, part in value.items()]
        if any(key is not new_key for key, (new_key, _) in zip(value, new, strict=True)):
            value.clear()
            value.update(new)
        else:
            for key, part in new:
                if value[key] is not part:
                    value[key] = part
        return value

    def _sequence(self, value: Any) -> Any:
        new = [self.of(part) for part in value]
        if all(a is b for a, b in zip(value, new, strict=True)):
            return value
        if isinstance(value, tuple | frozenset):
            return value._make(new) if hasattr(value, "_make") else type(value)(new)
        value.clear()
        (value.update if isinstance(value, set) else value.extend)(new)
        return value

    def _method(self, value: types.MethodType) -> Any:
        new = self.of(value.__self__)
        if new is value.__self__:
            return value
        return getattr(new, value.__func__.__name__, value)

    def _function(self, value: types.FunctionType) -> Any:
        cells = [self._cell(cell) for cell in value.__closure__ or ()]
        defaults, keywords = self._of_function(value.__defaults__), self._of_function(value.__kwdefaults__)
        attributes = {name: self._of_function(part) for name, part in vars(value).items()}
        unchanged = all(a is b for a, b in zip(cells, value.__closure__ or (), strict=True))
        unchanged &= defaults is value.__defaults__ and keywords is value.__kwdefaults__
        if unchanged and all(attributes[name] is part for name, part in vars(value).items()):
            return value
        # A function that calls itself holds itself.
        cells = [types.CellType(value) if _content(cell) is value else cell for cell in cells]
        made = types.FunctionType(value.__code__, value.__globals__, value.__name__, defaults, tuple(cells) or None)
        functools.update_wrapper(made, value, updated=())
        vars(made).clear()
        vars(made).update(attributes)
        made.__kwdefaults__ = keywords
        for cell in cells:
            if _content(cell) is value:
                cell.cell_contents = made
        return made

    def _of_function(self, content: Any) -> Any:
        return self.of(self.of_function(content))

    def _cell(self, cell: types.CellType) -> types.CellType:
        """Return a cell of a closure with what takes the place of its content; functions that share one still do."""
        if id(cell) not in self.cells:
            self.cells[id(cell)] = (cell, cell)
            content = _content(cell)
            new = self._of_function(content)
            if new is not content:
                self.cells[id(cell)] = (cell, types.CellType(new))
        return self.cells[id(cell)][1]


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


def _filled_cells(names: Collection[str], value: types.FunctionType) -> Iterator[tuple[str, types.CellType]]:
    for name, cell in zip(names, value.__closure__ or (), strict=True):
        if _content(cell) is not None:
            yield name, cell


def _partial(value: functools.partial[Any]) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    return value.func, value.args, value.keywords


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    """Return the attributes that an object itself holds, also those in slots."""
    if isinstance(value, _LEAVES):
        return
    yield from list(getattr(value, "__dict__", {}).items())
    slots = itertools.chain.from_iterable(_slots(kind) for kind in type(value).__mro__)
    for name in slots:
        try:
            yield name, object.__getattribute__(value, name)
        except AttributeError:
            continue


def _slots(kind: type) -> Iterator[str]:
    given = kind.__dict__.get("__slots__", ())
    for name in (given,) if isinstance(given, str) else given:
        if name not in ("__dict__", "__weakref__"):
            yield f"_{kind.__name__.lstrip('_')}{name}" if name.startswith("__") and not name.endswith("__") else name
