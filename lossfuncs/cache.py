"""Compile a Python function with Numba for one exact signature, or load the machine code of an earlier process.

Numba's own cache keys on the file that holds the function: an edited helper, an upgraded constant or a killed writer
makes it serve stale or broken code. Here the key is the content of everything the machine code depends on, a file is
one kernel, and any doubt about a file means compiling in memory. A file holds object code and symbol names, nothing to
unpickle, and is linked by an LLVM engine of its own, so equal symbol names from different processes never meet.

Environment: ``LOSSFUNCS_CACHE=0`` keeps kernels in memory only, ``LOSSFUNCS_CACHE=<directory>`` chooses the directory.
"""

from __future__ import annotations

import builtins
import contextlib
import gc
import hashlib
import json
import os
import secrets
import signal
import stat
import struct
import sys
import threading
import time
import types
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

MAGIC = b"LOSSFN01"
LIMIT = 512 << 20  # bytes on disk; a kernel is 10-50 KB
ABANDONED = 600  # seconds after which another process's temporary file belongs to a killed writer

_DIGEST = hashlib.sha256().digest_size
_PINNED = sys.stdlib_module_names | {"numpy", "numba", "llvmlite", "lossfuncs"}  # versions or sources are in every key
_UNRELATED = {"CACHE_DIR", "DEFAULT_NUM_THREADS", "NUM_THREADS", "THREADING_LAYER", "THREADING_LAYER_PRIORITY"}

_lock = threading.RLock()
_kernels: dict[object, _Machine] = {}
_counts = {"compiled": 0, "loaded": 0}
_hooked = False


class Info(NamedTuple):
    """What ``info`` reports. ``directory`` is None when nothing is kept on disk, and ``reason`` then says why."""

    directory: Path | None
    reason: str
    entries: int
    bytes: int
    compiled: int  # kernels that this process compiled
    loaded: int  # kernels that this process took from the directory


def compile(function: Callable[..., Any], signature: Any, **options: Any) -> Callable[..., Any]:
    """Return machine code for ``function`` at ``signature``: a Numba signature or a tuple of argument types.

    ``options`` are ``numba.njit``'s, over ``nogil=True, error_model="numpy"``. Plain Python functions that ``function``
    refers to, however deep, are compiled with it. The result takes positional arguments only and **trusts them**: it
    converts scalars, but of an array it checks the item size alone. A wrong dtype of the right size is reinterpreted,
    wrong strides are ignored, more dimensions than declared corrupt memory: call it with what it was made for.
    """
    return _compiled(function, signature, options).call


def address(function: Callable[..., Any], signature: Any, **options: Any) -> int:
    """As `compile`, for a signature of numbers: the address of a C function, which stays while the process lives."""
    found = _compiled(function, signature, options).address
    if not found:
        raise RuntimeError(f"{function.__name__} has no C function")
    return found


class _Machine(NamedTuple):
    """Machine code: the function that Python calls, and the address of the one that C does, if the signature allows one."""

    call: Callable[..., Any]
    address: int


def _compiled(function: Callable[..., Any], signature: Any, options: dict[str, Any]) -> _Machine:
    if not isinstance(function, types.FunctionType):
        raise TypeError(f"function must be a plain Python function, not {type(function).__name__}")
    options = {"nogil": True, "error_model": "numpy", **options}
    with _lock:
        _register_fork_hooks()
        from numba.core import config
        from numba.core.typing.templates import Signature

        if not isinstance(signature, (tuple, Signature)):
            wanted = "a Numba signature or a tuple of argument types"
            raise TypeError(f"signature must be {wanted}, not {type(signature).__name__}")
        if config.DISABLE_JIT:
            return _Machine(function, 0)
        try:
            key: object = _key(function, signature, options)
        except Exception:  # _NoContent, or an object that cannot even be looked at
            key = (function, signature, repr(sorted(options.items())))
        kernel = _kernels.get(key)
        if kernel is None:
            directory = _directory()[0] if isinstance(key, bytes) else None
            kernel = _load(directory, key, function) if directory and isinstance(key, bytes) else None
            if kernel is None:
                with _interrupts_wait(), _no_collections():
                    kernel, record = _compile(function, signature, options)
                    if directory and record and isinstance(key, bytes):
                        _store(directory, key, record)
                    _kernels[key] = kernel
            _kernels[key] = kernel
        return kernel


def info() -> Info:
    """Where kernels are kept, how many and how large, and how many this process compiled and loaded."""
    directory, reason = _directory()
    sizes = [size for _, size, _ in _entries(directory)] if directory else []
    return Info(directory, reason, len(sizes), sum(sizes), **_counts)


def clear() -> None:
    """Delete every kernel on disk; those already loaded stay usable."""
    directory, _ = _directory()
    for path, _, _ in _entries(directory) if directory else ():
        _unlink(path)


# What the machine code depends on


class _NoContent(Exception):
    """Something the function refers to cannot be told apart by content."""


def _key(function: types.FunctionType, signature: Any, options: dict[str, Any]) -> bytes:
    if _PACKAGE is None:
        raise _NoContent
    content = _Content()
    content.add("machine", _machine(), "package", _PACKAGE, "options", options)
    content.add(signature, function)
    return content.digest()


def _machine() -> tuple[Any, ...]:
    import llvmlite
    import numba
    import numpy
    from llvmlite import binding
    from numba.core import config

    from . import target

    config.reload_config()
    settings = sorted(
        (name, repr(value))
        for name, value in vars(config).items()
        if name.isupper() and name not in _UNRELATED and isinstance(value, (bool, int, str, type(None)))
    )
    versions = numba.__version__, llvmlite.__version__, binding.llvm_version_info, numpy.__version__, sys.version
    return *versions, sys.implementation.cache_tag, target.context().codegen().magic_tuple(), tuple(settings)


def _package_digest() -> bytes | None:
    """Digest of this package's sources that import Numba: they register overloads that no kernel names. None if not in files."""
    total, found = hashlib.sha256(), False
    root = Path(__file__).parent
    for path in sorted(root.glob("*.py")):  # no kernel's schedule comes from the folders
        source = path.read_bytes()
        if b"import numba" in source or b"from numba" in source:
            total.update(f"{path.name}\0{len(source)}\0".encode() + source)
            found = True
    return total.digest() if found else None


_PACKAGE = _package_digest()  # at import, not at first use: the sources must be those that are running


class _Content:
    """A hash of Python values by content, following functions into all that they refer to."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._seen: dict[object, int] = {}
        self._alive: list[object] = []  # an id is good only while its object lives

    def digest(self) -> bytes:
        return self._hash.digest()

    def add(self, *values: object) -> None:
        for value in values:
            self._value(value)

    def _tag(self, tag: str, text: bytes = b"") -> None:
        self._hash.update(f"{tag}:{len(text)}:".encode() + text)

    def _value(self, value: Any) -> None:
        kind = type(value)
        if kind is float:
            self._tag("float", struct.pack("<d", value))
        elif kind is complex:
            self._tag("complex", struct.pack("<dd", value.real, value.imag))
        elif value is None or value is Ellipsis or kind in (bool, int):
            self._tag(kind.__name__, repr(value).encode())
        elif kind is str:
            self._tag("str", value.encode("utf-8", "surrogatepass"))
        elif kind is bytes:
            self._tag("bytes", value)
        elif kind in (tuple, list):
            self._tag(kind.__name__, str(len(value)).encode())
            self.add(*value)
        elif kind is frozenset or kind is set:
            self._tag("set", repr(sorted(map(repr, value))).encode())
            if not all(type(item) in (str, int, bool, bytes, type(None)) for item in value):
                raise _NoContent
        elif id(value) in self._seen:
            self._tag("again", str(self._seen[id(value)]).encode())
        else:
            self._seen[id(value)] = len(self._seen)
            self._alive.append(value)
            self._object(value)

    def _object(self, value: Any) -> None:
        import numpy as np
        from llvmlite import ir
        from numba.core.dispatcher import Dispatcher
        from numba.core.types import Type
        from numba.core.typing.templates import Signature
        from numba.extending import _Intrinsic

        if isinstance(value, types.FunctionType):
            self._function(value)
        elif isinstance(value, types.CodeType):
            self._code(value)
        elif isinstance(value, Dispatcher):
            self.add("dispatcher", {k: repr(v) for k, v in value.targetoptions.items()}, value.py_func)
        elif isinstance(value, _Intrinsic):
            definition = value._defn
            self.add("intrinsic", definition.__module__, definition.__qualname__, definition)
        elif isinstance(value, dict):
            self.add("dict", len(value), *value.items())
        elif isinstance(value, tuple):  # a named tuple: its type carries the meaning of its items
            self.add("instance", type(value), tuple(value))
        elif isinstance(value, type):
            self._class(value)
        elif isinstance(value, types.ModuleType):
            self._tag("module", value.__name__.encode())
            if not _pinned(value.__name__):
                raise _NoContent
        elif isinstance(value, (np.ndarray, np.generic)) and not value.dtype.hasobject:
            array = np.asarray(value)
            self.add("array", type(value).__name__, str(array.dtype.descr), array.shape, array.tobytes())
        elif isinstance(value, (np.dtype, ir.Type)):
            self.add("type", type(value).__name__, str(value))
        elif isinstance(value, Signature):
            self.add("signature", value.args, value.return_type)
        elif isinstance(value, Type):
            self.add("type", type(value).__name__, str(value), getattr(value, "instance_class", None))
            self.add(*value.types if hasattr(value, "types") else ())
            if hasattr(value, "dispatcher"):
                self.add(value.dispatcher)
        elif isinstance(value, (staticmethod, classmethod)):
            self.add(type(value).__name__, value.__func__)
        elif isinstance(value, property):
            self.add("property", value.fget)
        else:  # a function written in C
            self._named(value, getattr(value, "__module__", None) or "", getattr(value, "__name__", ""))

    def _function(self, function: types.FunctionType) -> None:
        self.add("function", function.__code__, function.__defaults__, function.__kwdefaults__, *_overloads(function))
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            if not _is_empty(cell):
                self._variable(name, cell.cell_contents, function.__code__)
        scope = function.__globals__
        for code in _nested(function.__code__):
            for name in code.co_names:  # attributes too, so that a module's functions are followed
                if name in scope:
                    self._variable(name, scope[name], code)
                elif hasattr(builtins, name):
                    self.add("builtin", name)

    def _variable(self, name: str, value: Any, code: types.CodeType) -> None:
        """A free or global variable of ``code``; of a module that may change, the attributes that the code names."""
        self.add("variable", name)
        if not isinstance(value, types.ModuleType) or _pinned(value.__name__) and not _ours(value.__name__):
            self.add(value)
        elif (id(value), id(code)) not in self._seen:
            self._seen[id(value), id(code)] = len(self._seen)
            self.add("module", value.__name__)
            for attribute in code.co_names:
                if attribute in vars(value):
                    self._variable(attribute, vars(value)[attribute], code)

    def _code(self, code: types.CodeType) -> None:
        self.add("code", code.co_code, code.co_flags, code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount)
        self.add(code.co_consts, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
        self.add(getattr(code, "co_exceptiontable", b""))

    def _class(self, cls: type) -> None:
        fields = getattr(cls, "_fields", None)
        if issubclass(cls, tuple) and fields is not None:
            self.add("named tuple", cls.__module__, cls.__qualname__, fields, getattr(cls, "_field_defaults", {}))
        else:
            self._named(cls, cls.__module__, cls.__qualname__)

    def _named(self, value: object, module: str, qualname: str) -> None:
        """Pin by name what a hashed source or version defines; a class or C function of anyone else has no content."""
        found: Any = sys.modules.get(module)
        for name in qualname.split("."):
            found = getattr(found, name, None)
        if found is not value or not _pinned(module):
            raise _NoContent
        self.add("named", module, qualname)


def _overloads(function: types.FunctionType) -> list[types.FunctionType]:
    """What ``numba.extending.overload`` registered for a function: it is compiled in the function's place."""
    from numba.core.typing.templates import builtin_registry

    return [
        template._overload_func
        for value, kind in builtin_registry.globals
        if value is function
        for template in kind.templates
        if hasattr(template, "_overload_func")
    ]


def _pinned(module: str) -> bool:
    return module.partition(".")[0] in _PINNED


def _ours(module: str) -> bool:
    return module.partition(".")[0] == "lossfuncs"


def _is_empty(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return True
    return False


def _nested(code: types.CodeType) -> Iterable[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _nested(constant)


# Compiling and linking


class _Record(NamedTuple):
    """All that linking needs: the symbols of the entry points for Python and for C, of pointers to fill, of what to find."""

    entry: str
    c: str
    environments: list[str]
    externals: list[str]
    code: bytes


def _compile(
    function: types.FunctionType, signature: Any, options: dict[str, Any]
) -> tuple[_Machine, _Record | None]:
    _counts["compiled"] += 1
    dispatcher = _dispatcher(function, options, {})
    dispatcher.compile(signature)
    (result,) = dispatcher.overloads.values()
    machine, record = _Machine(result.entry_point, 0), None
    with contextlib.suppress(Exception):  # an inside of Numba's that has changed: there is a kernel all the same
        machine = _Machine(result.entry_point, result.library.get_pointer_to_function(result.fndesc.llvm_cfunc_wrapper_name))
        record = _record(result)
    return machine, record


@contextlib.contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Ctrl-C comes afterwards: while LLVM is at work it would reach Python in one of its callbacks, and get lost there."""
    handler: Any = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    came: list[tuple[Any, ...]] = []
    signal.signal(signal.SIGINT, lambda *interrupt: came.append(interrupt))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if came:
            handler(*came[0])


@contextlib.contextmanager
def _no_collections() -> Iterator[None]:
    """Meanwhile no garbage is collected: of the many objects of a compilation, next to none are any, and looking takes a tenth of it."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _record(result: Any) -> _Record | None:
    """A compile result's record, or None if its code holds addresses or objects of this process."""
    from llvmlite import binding
    from numba.core.environment import lookup_environment

    library = result.library
    symbols = [*library._final_module.functions, *library._final_module.global_variables]
    externals = [s.name for s in symbols if s.is_declaration and not s.name.startswith("llvm.")]
    environments = [s.name for s in symbols if s.name.startswith("_ZN08NumbaEnv")]
    if library.has_dynamic_globals or result.reload_init or not all(map(binding.address_of_symbol, externals)):
        return None
    if any(lookup_environment(name).consts for name in environments):
        return None
    names = result.fndesc.llvm_cpython_wrapper_name, result.fndesc.llvm_cfunc_wrapper_name
    return _Record(*names, environments, externals, library._get_compiled_object())


def _dispatcher(function: types.FunctionType, options: dict[str, Any], done: dict[types.FunctionType, Any]) -> Any:
    """A Numba dispatcher of ``function`` in which plain Python functions that Numba cannot type are dispatchers too."""
    from . import target

    def compiled(value: Any) -> Any:
        if not isinstance(value, types.FunctionType) or target.is_known(value):
            return value
        callee = {**options, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
        return done.get(value) or _dispatcher(value, callee, done)

    code, scope = function.__code__, dict(function.__globals__)
    cells = tuple(types.CellType() for _ in code.co_freevars)
    twin = types.FunctionType(code, scope, function.__name__, function.__defaults__, cells)
    twin.__kwdefaults__, twin.__qualname__ = function.__kwdefaults__, function.__qualname__
    done[function] = dispatcher = target.jit(twin, **options)  # before its callees: they may call it
    for name in {name for part in _nested(code) for name in part.co_names} & scope.keys():
        scope[name] = compiled(scope[name])
    for cell, original in zip(cells, function.__closure__ or (), strict=True):
        if not _is_empty(original):
            cell.cell_contents = compiled(original.cell_contents)
    return dispatcher


def _link(record: _Record, function: types.FunctionType) -> _Machine | None:
    import ctypes

    from llvmlite import binding
    from numba import _dynfunc
    from numba.core import config
    from numba.core.environment import Environment
    from numba.core.registry import cpu_target
    from numba.core.runtime import rtsys

    if not all(map(binding.address_of_symbol, record.externals)):
        rtsys.initialize(cpu_target.target_context)  # registers the runtime's symbols; the typing registries stay unloaded
        if not all(map(binding.address_of_symbol, record.externals)):
            return None  # LLVM would end the process
    triple = binding.get_process_triple()
    module = binding.parse_assembly(f'target triple = "{triple}"')
    machine = binding.Target.from_triple(triple).create_target_machine(jit=True)
    engine = binding.create_mcjit_compiler(module, machine, use_lmm=config.USE_LLVMLITE_MEMORY_MANAGER)
    engine.add_object_file(binding.ObjectFileRef.from_data(record.code))
    engine.finalize_object()
    environment = Environment(function.__globals__)
    for name in record.environments:
        ctypes.c_void_p.from_address(engine.get_global_value_address(name)).value = id(environment)
    address = engine.get_function_address(record.entry)
    kernel: Callable[..., Any] = _dynfunc.make_function(
        sys.modules[__name__], function.__name__, function.__doc__ or "", address, environment, (engine,)
    )
    return _Machine(kernel, engine.get_function_address(record.c))


def _register_fork_hooks() -> None:
    """A fork while another thread compiles would leave the child a compiler lock that nobody ever releases."""
    global _hooked
    if _hooked or not hasattr(os, "register_at_fork"):
        return
    from numba.core.compiler_lock import global_compiler_lock

    inner = global_compiler_lock._lock  # the lock itself: its owner also sends events to listeners

    def acquire() -> None:  # in the order of compile(), which holds ours when it asks for Numba's
        _lock.acquire()
        inner.acquire()

    def release() -> None:
        inner.release()
        _lock.release()

    os.register_at_fork(before=acquire, after_in_parent=release, after_in_child=release)
    _hooked = True


# The directory


def _directory() -> tuple[Path | None, str]:
    """The directory of the kernels, made if need be, or None and why nothing is kept on disk."""
    chosen = os.environ.get("LOSSFUNCS_CACHE", "")
    if chosen == "0":
        return None, "LOSSFUNCS_CACHE=0"
    try:
        if chosen:
            path = Path(chosen)
        else:
            import platformdirs

            path = platformdirs.user_cache_path("lossfuncs")
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.lstat()
    except Exception as error:
        return None, f"{type(error).__name__}: {error}"
    if not stat.S_ISDIR(status.st_mode):
        return None, f"{path} is not a directory itself (a link?)"
    if hasattr(os, "geteuid"):
        if status.st_uid != os.geteuid():
            return None, f"{path} belongs to user {status.st_uid}, not to {os.geteuid()}"
        if status.st_mode & 0o022:  # who writes there has his code run here
            return None, f"{path} has mode {stat.S_IMODE(status.st_mode):04o}: others can write there; 0700 or 0755 is wanted"
    return path, ""


def _entries(directory: Path, suffix: str = ".kernel") -> list[tuple[Path, int, float]]:
    """(path, bytes, time of writing) of every file, oldest first."""
    found = []
    try:
        with os.scandir(directory) as scan:
            for entry in scan:
                if entry.name.endswith(suffix):
                    status = entry.stat(follow_symlinks=False)
                    found.append((directory / entry.name, status.st_size, status.st_mtime))
    except OSError:
        pass
    return sorted(found, key=lambda item: item[2])


def _load(directory: Path, key: bytes, function: types.FunctionType) -> _Machine | None:
    try:
        descriptor = os.open(
            directory / f"{key.hex()}.kernel",
            os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0),
        )
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            private = not hasattr(os, "geteuid") or status.st_uid == os.geteuid() and not status.st_mode & 0o022
            if not stat.S_ISREG(status.st_mode) or not private:
                return None
            content = file.read()
        start = len(MAGIC) + _DIGEST
        body = content[start:]
        if content[:start] != MAGIC + hashlib.sha256(body).digest() or body[:_DIGEST] != key:
            return None
        header, _, code = body[_DIGEST:].partition(b"\n")
        kernel = _link(_Record(**json.loads(header), code=code), function)
    except Exception:  # whatever is wrong with the file, compiling is right
        return None
    if kernel is not None:
        _counts["loaded"] += 1
    return kernel


def _store(directory: Path, key: bytes, record: _Record) -> None:
    header = json.dumps({name: value for name, value in record._asdict().items() if name != "code"})
    body = key + header.encode() + b"\n" + record.code
    temporary = directory / f"{key.hex()}.{secrets.token_hex(8)}.tmp"
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
        with open(descriptor, "wb") as file:
            file.write(MAGIC + hashlib.sha256(body).digest() + body)
        os.replace(temporary, directory / f"{key.hex()}.kernel")
        _prune(directory)
    except Exception:  # a full disk, a read-only directory: the kernel in memory is as good
        _unlink(temporary)


def _prune(directory: Path) -> None:
    for path, _, written in _entries(directory, ".tmp"):
        if written < time.time() - ABANDONED:
            _unlink(path)
    entries = _entries(directory)
    excess = sum(size for _, size, _ in entries) - LIMIT
    for path, size, _ in entries:
        if excess <= 0:
            break
        _unlink(path)
        excess -= size


def _unlink(path: Path) -> None:
    try:
        path.unlink()
    except OSError:
        pass
