"""Keep ``torch.compile`` out of drawing and planning: Inductor would fuse numpy's operations and round them differently."""

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def untraced(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Decorator: the function and everything it calls always run in eager mode, with a graph break where compiled code calls it.

    Like ``torch.compiler.disable``, which however imports the compiler at decoration time and would double this package's import time.
    As long as nothing has imported the compiler, nothing can be traced.
    """
    disabled: Callable[Arguments, Result] | None = None

    @functools.wraps(function)
    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        nonlocal disabled
        if "torch._dynamo" not in sys.modules:
            return function(*args, **kwargs)
        if disabled is None:
            disabled = torch.compiler.disable(function)  # type: ignore[no-untyped-call]
        return disabled(*args, **kwargs)

    return call
