"""A target of Numba's of our own, so that the first call of a process takes half as long.

What Numba's CPU target does for any function at all is not needed for one of scalars and pointers:

    libraries   before its first compilation it imports all that might be called, SciPy's linear algebra among it. Here that waits until
                something does not compile without it
    passes      which look for what such functions do not hold are left out
    parts       functions that only others call are left to the kernel they are inlined in. Numba optimises each with all that is inlined
                in it and makes it machine code, so that the innermost of six would be compiled six times

The machine code is the same. Numba's own target takes over in versions whose insides are not those known here.
"""

from __future__ import annotations

import importlib
import weakref
from collections.abc import Callable
from typing import Any

import numba
from llvmlite import binding, ir
from numba.core import config, registry

NAME = "lossfuncs"
KNOWN = (0, 62), (0, 68)  # the first and the last version of Numba whose insides are these

TOGETHER = 4  # vectors: AVX2 has 16 registers, AVX-512 32

# What implements numbers, tuples and ranges
NEEDED = "cpython.builtins", "cpython.numbers", "cpython.rangeobj", "cpython.tupleobj", "cpython.iterators", "core.optional"

# Passes, by Numba's names, for closures, context managers, literals, arrays, inlining by Numba itself, and reports
IDLE = {
    "WithLifting", "InlineClosureLikes", "RewriteDynamicRaises", "MakeFunctionToJitFunction", "InlineInlinables", "FindLiterallyCalls",
    "LiteralUnroll", "LiteralPropagationSubPipelinePass", "InlineOverloads", "NopythonRewrites", "NoPythonSupportedFeatureValidation",
    "AnnotateTypes", "DumpParforDiagnostics",
}  # fmt: skip


def jit(function: Callable[..., Any], **options: Any) -> Any:
    """A dispatcher of the function, as from ``numba.njit``."""
    if config.DISABLE_JIT:
        return function
    return _dispatcher(function, targetoptions={**options, "nopython": True})


def context() -> Any:
    """Numba's target context of what `jit` gives."""
    return _dispatcher.targetdescr.target_context


def is_known(function: Callable[..., Any]) -> bool:
    """Whether Numba has code of its own for a Python function."""
    if not is_ours(function):
        load_all()
    types = _dispatcher.targetdescr.typing_context
    types.refresh()  # functions with a registered overload are known
    return types._lookup_global(function) is not None


def load_all() -> None:
    """From now on whatever Numba knows is known here too."""
    if hasattr(context(), "load_all"):
        context().load_all()


def is_ours(function: Callable[..., Any]) -> bool:
    """Whether it is one of this package."""
    return (function.__module__ or "").startswith(f"{__package__}.")


def hint(module: Any, jump: Any, blocks: bool = False) -> None:
    """A hint for the loop that ends with this jump: where LLVM makes vectors of it, several at a time.

    An operation waits for the one before it, and a CPU does not look far enough ahead to find those of the next vector by itself. A loop
    over blocks is not to be unrolled: often there are one or two.
    """
    hints: list[tuple[str, Any]] = [("interleave.count", ir.IntType(32)(TOGETHER))]
    _hint(module, jump, [*hints, ("unroll.disable", None)] if blocks else hints)


def scalar(module: Any, jump: Any) -> None:
    """A hint for the loop that ends with this jump: to leave it what it is, where LLVM would gather numbers from all over memory."""
    _hint(module, jump, [("vectorize.enable", ir.IntType(1)(0))])


def _hint(module: Any, jump: Any, given: list[tuple[str, Any]]) -> None:
    hints = [module.add_metadata([ir.MetaDataString(module, f"llvm.loop.{name}"), *([] if x is None else [x])]) for name, x in given]
    loop = ir.MDValue(module, hints, str(len(module.metadata)))
    loop.operands = loop, *hints  # LLVM knows it for a loop's by this
    jump.set_metadata("llvm.loop", loop)


def _own() -> Any:
    """The dispatcher class of our own target. An exception where Numba's insides are different."""
    from numba.core import codegen, compiler, cpu, descriptors, imputils, sigutils, target_extension, targetconfig, typing
    from numba.core.compiler_lock import global_compiler_lock
    from numba.core.environment import lookup_environment
    from numba.core.runtime import rtsys
    from numba.core.typing import mathdecl

    class Library(codegen.JITCodeLibrary):  # type: ignore[misc]
        """A function's LLVM modules. A part's stay as they are; a kernel's take in those of all its parts."""

        def add_llvm_module(self, module: Any) -> None:
            self._final_module.link_in(module)  # to be optimised in the kernel

        def finalize(self) -> None:
            if not any(f.name.startswith("_ZN7cpython") for f in self._final_module.functions):  # Python cannot call it
                for f in self._final_module.functions:
                    if not f.is_declaration and f.linkage == codegen.ll.Linkage.external:
                        f.linkage = "linkonce_odr"
                self._shared_module, self._finalized = self._final_module, True
                return
            self._linking_libraries = self._parts()
            super().finalize()
            for variable in self._final_module.global_variables:
                within = lookup_environment(variable.name) if variable.name.startswith("_ZN08NumbaEnv") else None
                if within is not None:
                    self._codegen.set_env(variable.name, within)

        def _parts(self) -> list[Any]:
            """All that this one needs, each behind those that call it: LLVM takes in what is called for."""
            seen: set[Any] = set()
            found: list[Any] = []

            def visit(library: Any) -> None:
                seen.add(library)
                for each in reversed(library._linking_libraries):
                    if each not in seen:
                        visit(each)
                found.append(library)

            visit(self)
            return found[-2::-1]

        def _optimize_final_module(self) -> None:
            if self._runtime() - {"NRT_Free"}:  # which only frees an error's text, in every kernel until it is seen to raise none
                rtsys.initialize(registry.cpu_target.target_context)
                self._final_module.link_in(rtsys.library._get_module_for_linking(), preserve=True)
            passes, builder = self._codegen._function_pass_manager()
            self._final_module.data_layout = self._codegen._data_layout
            for f in self._final_module.functions:
                if not f.is_declaration:
                    passes.run(f, builder)
            super()._optimize_final_module()
            if self._runtime():
                rtsys.initialize(registry.cpu_target.target_context)

        def _runtime(self) -> set[str]:
            """What is called of Numba's memory management."""
            return {f.name for f in self._final_module.functions if f.name.startswith("NRT_")}

    class Codegen(codegen.JITCPUCodegen):  # type: ignore[misc]
        _library_class = Library

        def _customize_tm_features(self) -> str:
            """With vectors of 512 bits where there are any: LLVM's rule for Intel's CPUs, 256, is for code that has few."""
            features: str = super()._customize_tm_features()
            return ",".join(filter(None, (features, "-prefer-256-bit" if binding.get_process_triple().startswith("x86_64") else "")))

        def set_env(self, name: str, environment: Any) -> None:
            if self._engine.get_global_value_address(name):  # there is no address of what is not machine code yet
                super().set_env(name, environment)

    class Types(typing.Context):  # type: ignore[misc]
        """What is known of types."""

        ready = False  # what is registered for methods asks for the implementations at once

        def __init__(self) -> None:
            self.adopted: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()
            super().__init__()

        def _load_builtins(self) -> None:
            if self.ready:
                with target_extension.target_override(NAME):
                    super()._load_builtins()

        def load_additional_registries(self) -> None:
            if implementations.complete():
                super().load_additional_registries()
            else:
                self.install_registry(mathdecl.registry)

        def resolve_value_type(self, value: Any) -> Any:
            if type(value) is registry.CPUDispatcher:  # compiled for Numba's own target, it could not be called
                if value not in self.adopted:
                    self.adopted[value] = Dispatcher(value.py_func, value.locals, value.targetoptions)
                value = self.adopted[value]
            return super().resolve_value_type(value)

    class Implementations(cpu.CPUContext):  # type: ignore[misc]
        """What is known of implementations. Numba copies it for each function."""

        loaded: set[str] = set()

        def init(self) -> None:
            super().init()
            self._internal_codegen = Codegen(NAME)

        def complete(self) -> bool:
            return "all" in self.loaded

        def load_additional_registries(self) -> None:
            if not self.loaded:
                self.loaded.add("needed")
                self.install_registry(imputils.builtin_registry)  # it must be the first, where Numba writes down intrinsics
                for name in NEEDED:
                    importlib.import_module(f"numba.{name}")
                self.install_registry(importlib.import_module("numba.cpython.mathimpl").registry)

        def load_all(self) -> None:
            if not self.complete():
                self.load_additional_registries()
                self.loaded.add("all")
                super().load_additional_registries()
                self.refresh()

        def compile_subroutine(self, builder: Any, impl: Any, sig: Any, locals: Any = None, flags: Any = None, caching: bool = True) -> Any:
            """Numba's would have what it writes in Python, as 1 / x^2 for x ** -2, raise where x is 0."""
            if flags is None:
                stack, flags = targetconfig.ConfigStack(), compiler.Flags()
                flags.nrt = bool(stack) and stack.top().nrt
                flags.error_model = "numpy"
            return super().compile_subroutine(builder, impl, sig, locals or {}, flags, caching)

        def post_lowering(self, module: Any, library: Any) -> None:
            """Not Numba's: the runtime is linked where a kernel needs it."""
            for function in module.functions:
                before: set[Any] = set()
                for block in function.blocks:
                    before.add(block)
                    if block.terminator is not None and block.terminator.opname == "br" and block.terminator.operands[0] in before:
                        hint(module, block.terminator)

    class Compiler(compiler.CompilerBase):  # type: ignore[misc]
        def define_pipelines(self) -> list[Any]:
            pipeline = compiler.DefaultPassBuilder.define_nopython_pipeline(self.state)
            if not implementations.complete() and is_ours(self.state.func_id.func):
                pipeline.passes = [one for one in pipeline.passes if one[0].__name__ not in IDLE]
                pipeline.finalize()
            return [pipeline]

    class Descriptor(descriptors.TargetDescriptor):  # type: ignore[misc]
        options = cpu.CPUTargetOptions
        typing_context = property(lambda self: types)
        target_context = property(lambda self: implementations)

    class Dispatcher(registry.CPUDispatcher):  # type: ignore[misc]
        targetdescr = Descriptor(NAME)

        def __init__(self, function: Any, locals: Any = None, targetoptions: Any = None, pipeline_class: Any = Compiler) -> None:
            super().__init__(function, locals, targetoptions, pipeline_class)

        def compile(self, signature: Any) -> Any:
            arguments, result = sigutils.normalize_signature(signature)
            with global_compiler_lock, self._compiling_counter, target_extension.target_override(NAME):
                if arguments not in self.overloads:
                    self.add_overload(self._compiled(arguments, result))
                return self.overloads[arguments].entry_point

        def _compiled(self, arguments: Any, result: Any) -> Any:
            try:
                return self._compiler.compile(arguments, result)
            except Exception:
                if implementations.complete():
                    raise
                load_all()
                types.callstack._fail_cache.clear()
                self._compiler._failed_cache.clear()
                return self._compiler.compile(arguments, result)

    def decorator(locals: Any = None, cache: bool = False, **options: Any) -> Any:
        """For Numba's own overloads."""
        return lambda function: Dispatcher(function, dict(locals or {}), options)

    class Kernels(target_extension.CPU):  # type: ignore[misc]
        """The target's token among Numba's."""

    types = Types()
    implementations: Any = None
    target_extension.target_registry.pop(NAME, None)  # of this module before it was loaded again
    target_extension.target_registry[NAME] = Kernels
    target_extension.dispatcher_registry[Kernels] = Dispatcher
    target_extension.jit_registry[Kernels] = decorator
    implementations = Implementations(types, NAME)
    types.ready = True
    return Dispatcher


def _chosen() -> Any:
    first, last = KNOWN
    return _own() if first <= numba.version_info[:2] <= last else registry.CPUDispatcher


_dispatcher: Any = _chosen()
