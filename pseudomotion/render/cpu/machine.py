"""Machine code of compiled functions: made by LLVM for the processor at hand, kept on disk, loaded."""

import ctypes
import hashlib
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import llvmlite
from llvmlite import binding, ir

from pseudomotion.render.cpu import compiler
from pseudomotion.render.cpu.compiler import Function


def folder() -> Path:
    """Where machine code is kept: below ``PSEUDOMOTION_CACHE`` where that is set, else in the user's folder for such things."""
    if given := os.environ.get("PSEUDOMOTION_CACHE"):
        return Path(given)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "pseudomotion" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "pseudomotion"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pseudomotion"


def _machine() -> Any:
    """The processor at hand, as LLVM describes it to itself."""
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    return binding.Target.from_triple(binding.get_process_triple()).create_target_machine(
        cpu=binding.get_host_cpu_name(),
        features=_features(),
        opt=3,
        reloc="static" if binding.get_process_triple().startswith("x86") else "default",
        codemodel="jitdefault",
        jit=True,
    )


def _features() -> str:
    try:
        return str(binding.get_host_cpu_features().flatten())
    except RuntimeError:  # not every platform says
        return ""


def _translate(functions: Sequence[Function], machine: Any) -> bytes:
    """Compile functions, and what they call, to an object file."""
    module = ir.Module("pseudomotion")
    module.triple, module.data_layout = binding.get_process_triple(), str(machine.target_data)
    for function in functions:
        function.emit(module, "external")
    parsed = binding.parse_assembly(str(module))
    parsed.verify()
    options = binding.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization, options.slp_vectorization = True, False
    passes = binding.create_pass_builder(machine, options)
    passes.getModulePassManager().run(parsed, passes)
    return bytes(machine.emit_object(parsed))


def load(functions: Sequence[Function], sources: Sequence[Path]) -> list[Callable[..., int]]:
    """Compiled functions, to be called with integers; they release the GIL.

    Machine code is kept on disk, under a name that depends on the ``sources`` it is made from, LLVM and the processor. Where nothing can be
    written, every process compiles anew.
    """
    facts = [
        *(function.__name__ for function in functions),
        llvmlite.__version__,
        binding.get_process_triple(),
        binding.get_host_cpu_name(),
        _features(),
    ]
    name = hashlib.sha256(
        b"\0".join([*(path.read_bytes() for path in (Path(__file__), Path(compiler.__file__), *sources)), *map(str.encode, facts)])
    ).hexdigest()
    path, machine = folder() / f"{name[:32]}.o", _machine()
    code = _read(path)
    if code is None:
        code = _translate(functions, machine)
        _write(path, code)
    engine = binding.create_mcjit_compiler(binding.parse_assembly(""), machine)
    engine.add_object_file(binding.ObjectFileRef.from_data(code))
    engine.finalize_object()
    calls: list[Callable[..., int]] = []
    for function in functions:
        kind = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * len(function.parameters))
        call: Any = kind(engine.get_function_address(function.__name__))
        call.engine = engine  # owns the machine code
        calls.append(call)
    return calls


def _read(path: Path) -> bytes | None:
    """What was kept, if it is whole: it begins with its own hash."""
    try:
        digest, code = (whole := path.read_bytes())[:32], whole[32:]
    except OSError:
        return None
    return code if hashlib.sha256(code).digest() == digest else None


def _write(path: Path, code: bytes) -> None:
    part = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(hashlib.sha256(code).digest() + code)
        part.replace(path)
    except OSError:
        with suppress(OSError):
            part.unlink(missing_ok=True)
