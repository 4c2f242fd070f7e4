"""Triton's interpreter, made faster and watched: what tests of the CUDA kernels on a CPU share."""

from triton.runtime import interpreter


def call(function, *args, **kwargs):
    """A device function called by a kernel. The interpreter would patch ``triton.language`` anew for each call, which takes half its time."""
    return function.rewrite()(*args, **kwargs)


interpreter.InterpretedFunction.__call__ = call
