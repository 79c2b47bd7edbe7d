"""The kernel cache: what is edited is compiled again, what is broken or not ours is not loaded, nothing raises."""

from __future__ import annotations

import ctypes
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

numba = pytest.importorskip("numba", reason="the kernel cache serves the Numba backend")

from numba import types  # noqa: E402
from numba.core import registry  # noqa: E402
from numba.core.codegen import CPUCodeLibrary  # noqa: E402

from lossfuncs import cache, target  # noqa: E402

SCALAR = (types.float64,)
PYTHON = [sys.executable, "-P", "-W", "ignore::DeprecationWarning", "-c"]  # -P: not the folder pytest runs in


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test's own, on disk and in memory, and for other processes a copy of the module and its target alone."""
    path = tmp_path / "kernels"
    package = tmp_path / "lossfuncs"
    package.mkdir()
    (package / "__init__.py").touch()
    for module in (cache, target):
        shutil.copy(module.__file__, package)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("LOSSFUNCS_CACHE", str(path))
    monkeypatch.setattr(cache, "_kernels", {})
    monkeypatch.setattr(cache, "_counts", {"compiled": 0, "loaded": 0})
    return path


def restart() -> None:
    """What a new process starts with: nothing in memory, nothing counted."""
    cache._kernels.clear()
    cache._counts.update(compiled=0, loaded=0)


def counts() -> tuple[int, int]:
    return cache.info().compiled, cache.info().loaded


def scaled(factor: float) -> Callable[[float], float]:
    def kernel(x: float) -> float:
        return factor * x

    return kernel


def python(program: str, *arguments: object, timeout: float = 100, **environment: str) -> str:
    """The output of a program in a fresh interpreter, which must succeed and say nothing on stderr."""
    done = subprocess.run(
        [*PYTHON, program, *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


# The same content is compiled once


def test_a_kernel_computes_what_the_function_does() -> None:
    def kernel(x: Any, out: Any, power: int) -> float:
        total = 0.0
        for i in range(x.shape[0]):
            out[i] = x[i] ** power
            total += out[i]
        return total

    array = types.Array(types.float32, 1, "C", readonly=True)
    compiled = cache.compile(kernel, (array, types.float32[::1], types.int64))
    x = np.arange(5, dtype=np.float32)
    x.flags.writeable = False
    out = np.empty_like(x)
    for _ in range(2):
        assert compiled(x, out, 2) == 30.0
        np.testing.assert_array_equal(out, x * x)
        restart()
        compiled = cache.compile(kernel, (array, types.float32[::1], types.int64))
        assert counts() == (0, 1)


def test_equal_content_is_compiled_once() -> None:
    first = cache.compile(scaled(2.0), SCALAR)
    assert cache.compile(scaled(2.0), SCALAR) is first
    assert cache.compile(scaled(2.0), types.float64(types.float64))(1.5) == 3.0  # the return type is part of it
    assert counts() == (2, 0)


def test_threads_that_ask_for_one_kernel_at_once_compile_it_once() -> None:
    together = threading.Barrier(16)
    results: list[float] = []

    def ask() -> None:
        together.wait(30)
        results.append(cache.compile(scaled(3.0), SCALAR)(2.0))

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == [6.0] * 16
    assert counts() == (1, 0)


WARM = """
import json, sys
import numpy
from numba import types
from lossfuncs import cache
def square(x):
    return x * x
def kernel(x, out):
    for i in range(x.size):
        out[i] = square(x[i])
compiled = cache.compile(kernel, (types.Array(types.float32, 1, "C", readonly=True), types.float32[::1]))
x = numpy.arange(4, dtype=numpy.float32)
out = numpy.empty_like(x)
compiled(x, out)
assert out.tolist() == [0, 1, 4, 9]
info = cache.info()
print(json.dumps([info.compiled, info.loaded, "numba.np.linalg" in sys.modules]))
"""


def test_a_later_process_loads_the_kernel_and_not_the_compiler() -> None:
    assert json.loads(python(WARM)) == [1, 0, True]
    assert json.loads(python(WARM)) == [0, 1, False]  # numba.np.linalg comes with the compiler's registries


LEAN = """
import json, sys
import numpy as np
import lossfuncs
from lossfuncs import cache
y_true, y_pred = np.eye(3, 70, dtype=np.float32), np.full((3, 70), 0.5, np.float32)
lossfuncs.mean_squared_error(y_true, y_pred)
seen = [cache.info().compiled]
lossfuncs.metrics.top_k_categorical_accuracy(y_true, y_pred)
lossfuncs.cosine_similarity(y_true.astype(np.float16), y_pred.astype(np.float16))
lossfuncs.value_and_grad("categorical_focal_crossentropy", y_true, y_pred)
lossfuncs.grad_and_hess("binary_crossentropy", y_true.astype(np.float64), y_pred.astype(np.float64), from_logits=True)
lossfuncs.value_and_grad("sparse_categorical_crossentropy", np.arange(3), y_pred, from_logits=True)
lossfuncs.pointwise(lambda t, p: abs(t - p) ** 1.5 + max(p, 0.0), name="mine")(y_true, y_pred)
print(json.dumps([*seen, cache.info().compiled, "numba.np.linalg" in sys.modules]))
"""


def test_a_first_call_compiles_one_kernel_and_kernels_need_little_of_numba() -> None:
    program = LEAN.replace("import lossfuncs\n", f"sys.path.insert(0, {str(Path(target.__file__).parent.parent)!r})\nimport lossfuncs\n", 1)
    assert json.loads(python(program, LOSSFUNCS_CACHE="0", PYTHONPATH="")) == [1, 7, False]


def test_parts_are_optimised_in_their_kernel_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    optimised = []
    for name in ("_optimize_final_module", "_optimize_functions"):
        monkeypatch.setattr(CPUCodeLibrary, name, recording(optimised, getattr(CPUCodeLibrary, name)))

    def innermost(x: float) -> float:
        return x + 0.25

    def part(x: float) -> float:
        return innermost(x) * innermost(-x)

    def kernel(x: float) -> float:
        return part(x) + innermost(x)

    assert cache.compile(kernel, SCALAR)(2.0) == kernel(2.0)
    assert optimised == ["_optimize_final_module"]


def recording(names: list[str], method: Callable[..., Any]) -> Callable[..., Any]:
    def recorded(*args: Any) -> Any:
        names.append(method.__name__)
        return method(*args)

    return recorded


FULL = """
import math, sys
import numpy as np
from numba import njit, types
from lossfuncs import cache
@njit
def jitted(x):
    room = np.zeros(3)
    room[1] = x
    return room.sum() + math.gamma(x)
def kernel(x):
    known, several = {1: x}, [x, 2.0]
    several.append(jitted(x))
    if x < 0:
        raise ValueError("below zero")
    return known[1] + sum(several) + np.sqrt(np.sum(np.eye(2)))
expected = 3.0 + 3.0 + 2.0 + 5.0 + 2.0**0.5
if "numba first" in sys.argv:
    assert jitted(3.0) == 5.0
compiled = cache.compile(kernel, (types.float64,))
assert abs(compiled(3.0) - expected) < 1e-12
try:
    compiled(-1.0)
except ValueError as error:
    assert str(error) == "below zero"
assert jitted(3.0) == 5.0
"""


@pytest.mark.parametrize("order", ["numba first", "numba last"])
def test_a_kernel_may_use_whatever_numba_knows_and_functions_compiled_by_it(order: str) -> None:
    python(FULL, order)


@pytest.mark.parametrize("known", [((0, 1), (0, 2)), ((99, 0), (99, 1))])
def test_where_numbas_insides_are_not_as_known_its_own_target_compiles(monkeypatch: pytest.MonkeyPatch, known: Any) -> None:
    monkeypatch.setattr(target, "KNOWN", known)
    chosen = target._chosen()
    assert chosen is registry.CPUDispatcher
    monkeypatch.setattr(target, "_dispatcher", chosen)
    for _ in range(2):
        assert cache.compile(lambda x: np.sqrt(added(x)), SCALAR)(3.0) == 2.0
        restart()


def added(x: float) -> float:
    return x + 1.0


def test_kernels_of_two_processes_do_not_mix_up_their_symbols(directory: Path) -> None:
    program = """
import sys
from numba import njit, types
from lossfuncs import cache
def make(factor):
    @njit(inline="never", _dbg_optnone=True)
    def helper(x):
        return factor * x
    def kernel(x):
        return helper(x)
    return kernel
print([cache.compile(make(float(factor)), (types.float64,))(1.0) for factor in sys.argv[1:]], cache.info().loaded)
"""
    assert python(program, 2) == "[2.0] 0\n"
    assert python(program, 3) == "[3.0] 0\n"
    assert python(program, 4, 2, 3) == "[4.0, 2.0, 3.0] 2\n"


def test_plain_functions_are_compiled_with_their_caller() -> None:
    def odd(n: int) -> bool:
        return False if n == 0 else even(n - 1)

    def even(n: int) -> bool:
        return True if n == 0 else odd(n - 1)

    def twice(x: float) -> float:
        return helper_of_this_module(x) + helper_of_this_module(x)

    assert cache.compile(lambda x: twice(x), SCALAR)(2.0) == 10.0

    def parity(n: int) -> int:
        return 1 if n == 0 else -parity(n - 1)

    assert cache.compile(parity, types.int64(types.int64))(7) == -1


def helper_of_this_module(x: float) -> float:
    return x + 3.0


# Whatever is edited is compiled again

EDITS: dict[str, tuple[str, str, str]] = {  # what, a kernel, what of its text is edited, into what
    "the body": ("def kernel(x): return x + 1", "+", "-"),
    "a constant": ("def kernel(x): return x + 1", "1", "2"),
    "the sign of a zero": ("import math\nz = 0.0\ndef kernel(x): return math.copysign(x, z)", "0.0", "-0.0"),
    "a type": ("c = 2 ** 62\ndef kernel(x): return x + 4 * c", "2 **", "2.0 **"),
    "a global": ("c = 1\ndef kernel(x): return x + c", "c = 1", "c = 2"),
    "an inner tuple": ("c = (1, (2, 3))\ndef kernel(x): return x + c[1][1]", "3", "4"),
    "an array": ("import numpy as np\nc = np.array([1, 2])\ndef kernel(x): return x + c[1]", "2]", "3]"),
    "a free variable": (
        "def make(c):\n def kernel(x): return x + c\n return kernel\nkernel = make(1)", "make(1)", "make(2)"
    ),
    "a helper": ("def helper(x): return x + 1\ndef kernel(x): return helper(x)", "1", "2"),
    "a helper's constant": ("c = 1\ndef helper(x): return x + c\ndef kernel(x): return helper(x)", "c = 1", "c = 2"),
    "a helper's default": ("def helper(x, y=1): return x + y\ndef kernel(x): return helper(x)", "y=1", "y=2"),
    "a helper compiled by Numba": (
        "from numba import njit\n@njit\ndef helper(x): return x + 1\ndef kernel(x): return helper(x)", "1", "2"
    ),
    "the fields of a named tuple": (
        "from collections import namedtuple as n\nP = n('P', 'a b')\ndef kernel(x): return P(x, 2 * x).a", "a b", "b a"
    ),
    "a module's variable": (
        "import types\nm = types.ModuleType('m')\nm.c = 1\ndef kernel(x): return x + m.c", "m.c = 1", "m.c = 2"
    ),
    "a nested function's constant": (
        "c = 1\ndef kernel(x):\n def inner(y): return y + c\n return inner(x)", "c = 1", "c = 2"
    ),
    "an intrinsic's free variable": (
        """
from numba import types
from numba.extending import intrinsic
def make(operation):
    @intrinsic
    def apply(context, x):
        def build(context, builder, signature, arguments):
            return getattr(builder, operation)(arguments[0], arguments[0])
        return types.float64(types.float64), build
    return apply
apply = make("fadd")
def kernel(x): return apply(x)
""",
        "fadd",
        "fmul",
    ),
    "an overload": (
        """
from numba.extending import overload
def stub(x): raise NotImplementedError
@overload(stub)
def of_stub(x):
    def body(x): return x + 1
    return body
def kernel(x): return stub(x)
""",
        "1",
        "2",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "old", "new"), EDITS.values(), ids=EDITS.keys())
def test_an_edit_is_compiled_again_and_an_equal_text_is_not(text: str, old: str, new: str) -> None:
    def result(source: str) -> float:
        scope: dict[str, Any] = {"__name__": "edited"}
        exec(source, scope)
        return float(cache.compile(scope["kernel"], SCALAR)(5.0))

    before = result(text)
    restart()
    assert result(text) == before
    assert counts() == (0, 1)
    assert text.count(old) == 1
    assert result(text.replace(old, new)) != before
    assert counts() == (1, 1)


def test_an_edited_helper_in_another_file_is_compiled_again(tmp_path: Path) -> None:
    program = """
from numba import types
from lossfuncs import cache
import helpers
def kernel(x):
    return helpers.helper(x) + helpers.constant
print(cache.compile(kernel, (types.float64,))(1.0), cache.info().loaded)
"""
    helpers = tmp_path / "helpers.py"
    for text, wanted in [
        ("from numba import njit\n@njit\ndef helper(x): return 2 * x\nconstant = 1", "3.0 0"),
        ("from numba import njit\n@njit\ndef helper(x): return 2 * x\nconstant = 1\n\nother = 5", "3.0 1"),
        ("from numba import njit\n@njit\ndef helper(x): return 6 * x\nconstant = 1", "7.0 0"),
        ("from numba import njit\n@njit\ndef helper(x): return 6 * x\nconstant = 4", "10.0 0"),
    ]:
        helpers.write_text(text)
        assert python(program, PYTHONDONTWRITEBYTECODE="1").strip() == wanted


def test_an_edited_source_of_the_package_that_imports_numba_changes_every_key(tmp_path: Path) -> None:
    def compiled() -> int:
        return int(json.loads(python(WARM))[0])

    assert [compiled(), compiled()] == [1, 0]
    for text in ("import numba as n1", "import numba as n2"):
        (tmp_path / "lossfuncs" / "overloads.py").write_text(text)
        assert [compiled(), compiled()] == [1, 0]


def test_without_sources_to_tell_versions_apart_nothing_is_kept_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "__file__", os.path.join("archive.zip", "lossfuncs", "cache.py"))
    monkeypatch.setattr(cache, "_PACKAGE", cache._package_digest())
    assert cache.compile(scaled(2.0), SCALAR)(1.0) == 2.0
    assert cache.info().entries == 0


def test_settings_of_numba_are_part_of_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    def beyond(x: Any) -> float:
        return x[3] if x.shape[0] > 100 else x[1]  # type: ignore[no-any-return]

    cache.compile(beyond, (types.float64[::1],))(np.ones(2))
    restart()
    monkeypatch.setenv("NUMBA_BOUNDSCHECK", "1")
    with pytest.raises(IndexError):
        cache.compile(beyond, (types.float64[::1],))(np.ones(1))
    assert counts() == (1, 0)


def test_what_has_no_content_is_kept_in_memory_only() -> None:
    import ctypes

    absolute = ctypes.CDLL(None).labs
    absolute.argtypes, absolute.restype = [ctypes.c_long], ctypes.c_long

    def kernel(x: int) -> int:
        return absolute(x)  # type: ignore[no-any-return]

    compiled = cache.compile(kernel, (types.int64,))
    assert compiled(-3) == 3
    assert cache.compile(kernel, (types.int64,)) is compiled
    assert cache.info().entries == 0


# Files that are broken or not ours


def test_any_broken_file_is_compiled_again(directory: Path) -> None:
    cache.compile(scaled(2.0), SCALAR)
    (file,) = directory.iterdir()
    good = file.read_bytes()
    rng = random.Random(1)
    broken = [b"", good[:1], good[:39], good[:71], good[:80], good[:-1], good + b"x", b"x" * len(good), good[::-1]]
    for _ in range(12):
        position = rng.randrange(len(good))
        flipped = bytes([good[position] ^ 1 << rng.randrange(8)])
        broken += [good[:position], good[:position] + flipped + good[position + 1 :]]
    for content in broken:
        file.write_bytes(content)
        restart()
        assert cache.compile(scaled(2.0), SCALAR)(4.0) == 8.0
        assert counts() == (1, 0)
        assert file.read_bytes()[: len(cache.MAGIC)] == cache.MAGIC  # written anew


def test_a_file_under_another_kernels_name_is_not_loaded(directory: Path) -> None:
    cache.compile(scaled(2.0), SCALAR)
    (two,) = directory.iterdir()
    cache.compile(scaled(3.0), SCALAR)
    (three,) = set(directory.iterdir()) - {two}
    two.replace(three)
    restart()
    assert cache.compile(scaled(3.0), SCALAR)(1.0) == 3.0
    assert counts() == (1, 0)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="this system has no file owners")
@pytest.mark.parametrize("change", ["group may write", "another owner", "link", "pipe", "directory"])
def test_a_file_that_is_not_ours_alone_is_not_loaded(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    cache.compile(scaled(2.0), SCALAR)
    (file,) = directory.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    if change == "group may write":
        file.chmod(0o660)
    elif change == "another owner":
        status = os.fstat
        monkeypatch.setattr(os, "fstat", lambda fd: os.stat_result((*status(fd)[:4], 12345, *status(fd)[5:])))
    else:
        file.rename(tmp_path / "elsewhere")
        if change == "link":
            file.symlink_to(tmp_path / "elsewhere")
        elif change == "pipe":
            os.mkfifo(file)
        else:
            file.mkdir()
    restart()
    assert cache.compile(scaled(2.0), SCALAR)(1.0) == 2.0
    assert counts() == (1, 0)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="this system has no file owners")
@pytest.mark.parametrize(
    ("mode", "owner", "link", "reason"),
    [
        (0o770, 0, False, "has mode 0770: others can write there"),
        (0o777, 0, False, "has mode 0777: others can write there"),
        (0o702, 0, False, "has mode 0702: others can write there"),
        (0o700, 1, False, "belongs to user"),
        (0o700, 0, True, "is not a directory itself"),
    ],
)
def test_a_directory_that_others_may_write_is_not_used(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, owner: int, link: bool, reason: str
) -> None:
    target = tmp_path / "target" if link else directory
    target.mkdir()
    target.chmod(mode)
    if link:
        directory.symlink_to(target)
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + owner)
    assert cache.compile(scaled(2.0), SCALAR)(1.0) == 2.0
    info = cache.info()
    assert (info.directory, info.entries, info.compiled) == (None, 0, 1)
    assert reason in info.reason
    assert list(target.iterdir()) == []


def test_a_directory_that_others_may_read_is_used(directory: Path) -> None:
    directory.mkdir()
    directory.chmod(0o755)
    cache.compile(scaled(2.0), SCALAR)
    assert cache.info().entries == 1


def test_a_directory_made_here_is_private(directory: Path) -> None:
    cache.compile(scaled(2.0), SCALAR)
    assert directory.stat().st_mode & 0o777 == 0o700
    assert cache.info() == (directory, "", 1, next(directory.iterdir()).stat().st_size, 1, 0)


def test_zero_keeps_kernels_in_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LOSSFUNCS_CACHE", "0")
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    monkeypatch.chdir(home)
    assert cache.compile(scaled(2.0), SCALAR)(1.0) == 2.0
    assert cache.info()[:4] == (None, "LOSSFUNCS_CACHE=0", 0, 0)
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("variable", ["LOSSFUNCS_CACHE", "XDG_CACHE_HOME", "HOME"])
def test_a_directory_that_cannot_be_made_is_done_without(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.delenv("LOSSFUNCS_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv(variable, os.path.join(os.devnull, "home"))  # not even root makes a folder below a device
    if variable == "XDG_CACHE_HOME" and sys.platform != "linux":
        pytest.skip("XDG_CACHE_HOME is Linux' alone")
    assert cache.compile(scaled(2.0), SCALAR)(1.0) == 2.0
    info = cache.info()
    assert info.directory is None
    assert "Error: " in info.reason


def test_an_interrupt_while_llvm_is_at_work_is_raised_and_the_kernel_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    compile_ = cache._compile

    def interrupted(*given: Any) -> Any:
        ctypes.CFUNCTYPE(None)(lambda: signal.raise_signal(signal.SIGINT))()  # as one of LLVM's callbacks, which lose an exception
        return compile_(*given)

    monkeypatch.setattr(cache, "_compile", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cache.compile(scaled(2.0), SCALAR)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert cache.compile(scaled(2.0), SCALAR)(1.0) == 2.0
    assert counts() == (1, 0)


def test_a_read_only_directory_still_serves_what_is_in_it(directory: Path) -> None:
    cache.compile(scaled(2.0), SCALAR)
    directory.chmod(0o500)
    try:
        restart()
        assert cache.compile(scaled(2.0), SCALAR)(1.0) == 2.0
        assert cache.compile(scaled(3.0), SCALAR)(1.0) == 3.0
        assert counts() == (1, 1)
    finally:
        directory.chmod(0o700)


@pytest.mark.skipif(sys.platform == "win32", reason="this system has no limit on the size of files")
def test_a_full_disk_leaves_nothing_behind(directory: Path) -> None:
    python(
        """
import resource, sys
from numba import types
from lossfuncs import cache
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
assert cache.compile(lambda x: x + 1, (types.float64,))(1.0) == 2.0
assert cache.info()[2:] == (0, 0, 1, 0), cache.info()
""",
        1000,
    )
    assert list(directory.iterdir()) == []


# Children of one process that has the compiler ready: a writer costs a compilation, not the start of an interpreter.
WRITERS = """
import os, random, signal, sys, time
from numba import types
from lossfuncs import cache
def make(factor):
    def kernel(x):
        return factor * x
    return kernel
def compile_and_check(count):
    for number in range(count):
        assert cache.compile(make(float(number)), (types.float64,))(1.0) == number
def child(count):
    process = os.fork()
    if process == 0:
        compile_and_check(count)
        os._exit(0)
    return process
compile_and_check(1)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("writers", [12, pytest.param(200, marks=pytest.mark.slow)])
def test_writers_killed_at_any_moment_leave_a_good_cache(writers: int) -> None:
    program = """
for _ in range(int(sys.argv[1])):
    writer = child(30)
    time.sleep(random.random() * 0.3)
    os.kill(writer, signal.SIGKILL)
    os.waitpid(writer, 0)
compile_and_check(30)
compiled = cache.info().compiled
cache._kernels.clear()
compile_and_check(30)
assert cache.info().compiled == compiled
assert cache.info().entries == 30
"""
    python(WRITERS + program, writers, timeout=600)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_processes_at_work_at_once_all_get_it_right(directory: Path) -> None:
    program = """
for writer in [child(6) for _ in range(8)]:
    assert os.waitpid(writer, 0)[1] == 0
"""
    python(WRITERS + program)
    assert {path.suffix for path in directory.iterdir()} == {".kernel"}
    assert cache.info().entries == 6


def test_the_directory_is_bounded_and_the_oldest_goes_first(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    abandoned, current = directory / "a.tmp", directory / "b.tmp"
    directory.mkdir(mode=0o700)
    abandoned.touch()
    current.touch()
    os.utime(abandoned, (1, 1))
    cache.compile(scaled(0.0), SCALAR)
    (first,) = directory.glob("*.kernel")
    monkeypatch.setattr(cache, "LIMIT", int(3.5 * first.stat().st_size))
    os.utime(first, (1, 1))
    for factor in (1.0, 2.0, 3.0):
        cache.compile(scaled(factor), SCALAR)
    assert cache.info().entries == 3
    assert not first.exists()
    assert not abandoned.exists()
    assert current.exists()


def test_clear_empties_the_directory_and_kernels_stay_usable(directory: Path) -> None:
    kernel = cache.compile(scaled(2.0), SCALAR)
    assert cache.info().entries == 1
    cache.clear()
    assert cache.info()[:4] == (directory, "", 0, 0)
    assert kernel(2.0) == 4.0


@pytest.mark.parametrize("function", [abs, len, "kernel", None])
def test_what_is_no_python_function_is_refused(function: object) -> None:
    with pytest.raises(TypeError, match=f"function must be a plain Python function, not {type(function).__name__}"):
        cache.compile(function, SCALAR)  # type: ignore[arg-type]


@pytest.mark.parametrize("signature", ["float64(float64)", [types.float64], types.float64])
def test_what_is_no_signature_is_refused(signature: object) -> None:
    with pytest.raises(TypeError, match="signature must be a Numba signature or a tuple of argument types, not "):
        cache.compile(scaled(2.0), signature)


def test_a_failure_in_a_kernel_is_raised_from_a_loaded_one_too() -> None:
    def kernel(x: float) -> float:
        if x < 0:
            raise ValueError("below zero")
        return x

    for _ in range(2):
        compiled = cache.compile(kernel, SCALAR)
        with pytest.raises(ValueError, match="below zero"):
            compiled(-1.0)
        assert compiled(2.0) == 2.0
        restart()
    cache.compile(kernel, SCALAR)
    assert counts() == (0, 1)


def test_a_function_that_does_not_compile_raises_each_time() -> None:
    def kernel(x: float) -> float:
        return x.no_such_attribute  # type: ignore[attr-defined, no-any-return]

    for _ in range(2):
        with pytest.raises(numba.errors.TypingError):
            cache.compile(kernel, SCALAR)


# Each fork meets a compilation, begun up to 40 ms before, and the next begins when the child is done: so many forks, so many kernels.
FORKS = """
import itertools, os, random, signal, sys, threading, time
from numba import types
from lossfuncs import cache
def make(factor):
    def kernel(x):
        return factor * x
    return kernel
wanted = threading.Semaphore(0)
def compile_what_is_wanted():
    for number in itertools.count(1.0):
        wanted.acquire()
        assert cache.compile(make(number), (types.float64,))(1.0) == number
cache.compile(make(0.0), (types.float64,))
threading.Thread(target=compile_what_is_wanted, daemon=True).start()
for number in range(int(sys.argv[1])):
    wanted.release()
    time.sleep(random.random() * 0.04)
    child = os.fork()
    if child == 0:
        signal.alarm(30)  # a child that hangs dies by it
        os._exit(0 if cache.compile(make(-number - 1.0), (types.float64,))(1.0) == -number - 1.0 else 1)
    assert os.waitpid(child, 0)[1] == 0
os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("forks", [12, pytest.param(200, marks=pytest.mark.slow)])
def test_children_forked_while_a_thread_compiles_can_compile(forks: int) -> None:
    python(FORKS, forks, timeout=600, LOSSFUNCS_CACHE="0")


def test_c_has_a_compiled_and_a_loaded_kernel_at_an_address() -> None:
    def following(n: int) -> int:
        return n + 1

    for wanted in ((1, 0), (0, 1)):
        address = cache.address(following, types.int64(types.int64))
        assert counts() == wanted
        assert ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(address)(41) == 42
        restart()
