"""Compiled once for a machine: numba's cache of machine code, in a folder of the user's."""

# mypy: ignore-errors

import hashlib
import os
from pathlib import Path

import numba
from numba.misc.appdirs import user_cache_dir

COMPILED_FROM = ("kernels.py", "vector.py", "cache.py", "../table.py")  # numba itself would look at the first only


def folder() -> Path:
    """Where the machine code lies: below ``NUMBA_CACHE_DIR`` where that is set."""
    here = Path(__file__).parent
    version = hashlib.sha256(b"".join((here / name).read_bytes() for name in COMPILED_FROM)).hexdigest()[:16]
    return Path(os.environ.get("NUMBA_CACHE_DIR") or user_cache_dir("pseudomotion", False)) / f"pseudomotion-{version}"


def cached(signature):
    """Compile a function, or load what was compiled before. Where no folder can be written, every process compiles anew."""

    def compile_function(function):
        before = numba.config.CACHE_DIR
        try:
            folder().mkdir(parents=True, exist_ok=True)
            numba.config.CACHE_DIR = str(folder())
            keep = os.access(folder(), os.W_OK)
        except OSError:
            keep = False
        try:
            return numba.njit(signature, nogil=True, error_model="numpy", cache=keep)(function)
        finally:
            numba.config.CACHE_DIR = before

    return compile_function
