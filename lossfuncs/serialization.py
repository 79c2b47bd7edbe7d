"""Losses and metrics by name, and as JSON: what `get`, `serialize` and `deserialize` of `losses` and `metrics` share.

Names are looked up in a fixed registry for each kind, in custom_objects, and among the losses given to `lossfuncs.register`; nothing is
imported by name. The configurations are Keras', so that either library reads the other's.
"""

from __future__ import annotations

import itertools
import re
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from . import names
from .options import shown

_numbers: dict[str, Iterator[int]] = {}
REGISTRIES: dict[str, Registry] = {}


def snake_case(name: str) -> str:
    """MeanIoU as mean_io_u, as Keras has it."""
    return re.sub(r"(?<=.)(?=[A-Z][a-z])|(?<=[a-z])(?=[A-Z])", "_", name).lower()


def automatic_name(cls: type) -> str:
    """The class's name in snake_case; the second of the process is numbered _1, and so on."""
    prefix = snake_case(cls.__name__.strip("_"))
    number = next(_numbers.setdefault(prefix, itertools.count()))
    return f"{prefix}_{number}" if number else prefix


def identity(x: Any, inside: tuple[int, ...] = ()) -> Any:
    """What copies of x, pickled ones too, have in common and others do not, to compare with ==: a function's code, an object's state."""
    if isinstance(x, (list, tuple)):
        return [identity(value, inside) for value in x]
    if isinstance(x, np.ndarray):
        return x.shape, x.dtype.str, x.tobytes()
    if x is None or isinstance(x, (bool, int, float, str, np.generic)):
        return type(x), repr(x)  # which NaN has in common with itself
    if isinstance(x, type) or hasattr(x, "entry"):  # lossfuncs' own functions are the same object everywhere
        return x
    if id(x) in inside:
        return type(x)
    inside = (*inside, id(x))
    if isinstance(x, Mapping):
        return [(key, identity(value, inside)) for key, value in x.items()]
    if isinstance(x, types.FunctionType):
        cells = [cell.cell_contents for cell in x.__closure__ or ()]
        return x.__module__, x.__qualname__, x.__code__, identity([x.__defaults__, x.__kwdefaults__, cells], inside)
    if hasattr(x, "_identity"):
        return type(x), x._identity()
    try:
        state = x.__reduce_ex__(2)
    except Exception:  # nothing but x itself is like it
        return x
    return x if isinstance(state, str) else identity(state, inside)


class Registry:
    """The classes and functions of one kind, "loss" or "metric"; module is where Keras has them."""

    def __init__(self, kind: str, module: str, classes: Iterable[type], functions: Iterable[Callable[..., Any]]) -> None:
        self.kind, self.module = kind, module
        self.classes = {cls.__name__: cls for cls in classes}
        self.functions = {function.__name__: function for function in functions}
        self.registered: dict[str, Callable[..., Any]] = {}  # by the user, with `lossfuncs.register`
        spellings = names.SPELLINGS[kind]
        self._class_of = {spellings[name].name: cls for name, cls in self.classes.items() if name in spellings}
        REGISTRIES[kind] = self

    def find(self, name: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
        """The class or function that a string means: as in Keras 3, or else as in the newest generation that knows it.

        ValueError, with the nearest name, for a string that means nothing.
        """
        own = {**self.registered, **(custom_objects or {})}
        if isinstance(name, str) and name in own:
            return own[name]
        canonical = names.find(self.kind, name if isinstance(name, str) else repr(name))
        form = names.SPELLINGS[self.kind][name].forms.rstrip("-")[-1:]
        is_class = form in ("c", "C") if form else name in self.classes
        found = (self._class_of if is_class else self.functions).get(canonical)
        if found is None:
            raise ValueError(f"Could not interpret {self.kind} identifier: {name!r} is known to older generations of Keras only")
        return found

    def function(self, name: str) -> Callable[..., Any]:
        """The function behind a string, where that names a class too. ValueError for a string that means nothing, or has none."""
        if name in self.registered:
            return self.registered[name]
        canonical = names.find(self.kind, name)
        if canonical not in self.functions:
            raise ValueError(f"{name!r} is a {self.kind} that has no form as a function of two arrays")
        return self.functions[canonical]

    def get(self, identifier: Any) -> Any:
        """None, a function, or an instance; see `lossfuncs.losses.get`."""
        if identifier is None:
            return None
        if isinstance(identifier, str):
            found = self.find(identifier)
        elif isinstance(identifier, dict):
            found = self.deserialize(identifier)
        else:
            found = identifier
        if isinstance(found, type):
            found = found()
        if not callable(found):
            raise ValueError(f"Could not interpret {self.kind} identifier: {shown(identifier)}")
        return found

    def serialize(self, thing: Any) -> dict[str, Any]:
        """What `deserialize` makes the same function, or an equal instance, from; JSON can hold it."""
        if hasattr(thing, "get_config") and not isinstance(thing, type):
            cls = type(thing)
            builtin = self.classes.get(cls.__name__) is cls
            return {
                "module": self.module if builtin else cls.__module__,
                "class_name": cls.__name__,
                "config": self._plain(thing.get_config()),
                "registered_name": None if builtin else cls.__name__,
            }
        if callable(thing) and hasattr(thing, "__name__") and not isinstance(thing, type):
            name, module = thing.__name__, "builtins"
            if self.functions.get(name) is not thing:  # losses and metrics have each their cosine_similarity
                module = next((other.module for other in REGISTRIES.values() if other.functions.get(name) is thing), module)
            return {"module": module, "class_name": "function", "config": name, "registered_name": "function"}
        raise ValueError(f"a {self.kind} to serialize must be a function, or have get_config, got {shown(thing)}")

    def deserialize(self, config: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
        """The function, or a new instance, that a dict describes; a string gives the class or function; None gives None."""
        if config is None:
            return None
        if not isinstance(config, dict):
            return self.find(config, custom_objects)
        if "class_name" not in config:
            raise ValueError(f"Unknown `config` as a `dict`, config={shown(config)}: it has no class_name")
        name, options = config["class_name"], config.get("config") or {}
        if name == "function":
            return self._function(options, config.get("module"), custom_objects)
        if not isinstance(options, dict):
            raise ValueError(f"config of {name} must be a dict, got {shown(options)}")
        if name in ("__tensor__", "__numpy__"):  # Keras' record of an array
            return np.array(options.get("value"), options.get("dtype"))
        cls = self.find(name, custom_objects)
        if not isinstance(cls, type):
            raise ValueError(f"class_name must name a class, got {name!r}, which is a function")
        made = {key: self.deserialize(x, custom_objects) if _is_record(x) else x for key, x in options.items()}
        return cls.from_config(made) if hasattr(cls, "from_config") else cls(**made)

    def _function(self, name: Any, module: Any, custom_objects: Mapping[str, Any] | None) -> Any:
        if not isinstance(name, str):
            raise ValueError(f"config of a function must be its name, got {shown(name)}")
        if custom_objects and name in custom_objects:
            return custom_objects[name]
        named = [registry for registry in REGISTRIES.values() if registry.module == module]
        for registry in (*named, self, *REGISTRIES.values()):
            if name in registry.functions:
                return registry.functions[name]
        found = self.find(name, custom_objects)
        if isinstance(found, type):
            raise ValueError(f"config of a function must be its name, got {name!r}, which is a class")
        return found

    def _plain(self, x: Any) -> Any:
        """x in JSON's types."""
        if isinstance(x, Mapping):
            return {key: self._plain(value) for key, value in x.items()}
        if isinstance(x, (list, tuple)):
            return [self._plain(value) for value in x]
        if isinstance(x, (np.ndarray, np.generic)):
            return x.tolist()
        if x is None or isinstance(x, (bool, int, float, str)):
            return x
        return self.serialize(x)


def _is_record(x: Any) -> bool:
    return isinstance(x, dict) and "class_name" in x
