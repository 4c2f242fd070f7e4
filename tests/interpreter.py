"""Triton's interpreter, made faster and watched: what tests of the CUDA kernels on a CPU share."""

import numpy as np
import torch
from triton.runtime import interpreter

call_patched = interpreter.InterpretedFunction.__call__


def call(function, *args, **kwargs):
    """A device function called by a kernel. The interpreter would patch ``triton.language`` for each call: half of its time."""
    if function.fn.__module__.startswith("triton."):
        return call_patched(function, *args, **kwargs)  # has modules of its own
    return function.rewrite()(*args, **kwargs)


interpreter.InterpretedFunction.__call__ = call


class Watch:
    """Checks every launch: no program touches a byte that another program of the launch writes, and every address lies in a tensor.

    Programs run in a shuffled order. Stands in for compute-sanitizer where there is no GPU. ``written`` counts, over all launches, how
    often each byte of each tensor was written.
    """

    def __init__(self, monkeypatch, seed=0):
        self.generator = np.random.default_rng(seed)
        self.written = {}
        builder, executor = interpreter.InterpreterBuilder, interpreter.GridExecutor
        for kind, name in (("reads", "create_masked_load"), ("writes", "create_masked_store")):
            monkeypatch.setattr(builder, name, self.recorded(kind, getattr(builder, name)))
        place, run = builder.set_grid_idx, executor.__call__

        def placed(builder, x, y, z):
            self.program = int(self.order[x])
            return place(builder, self.program, y, z)

        def watched(grid, *args, **options):
            tensors = [value for value in (*args, *options.values()) if isinstance(value, torch.Tensor)]
            spans = sorted({(t.untyped_storage().data_ptr(), t.untyped_storage().nbytes()) for t in tensors})
            self.begins, self.ends = np.array([begin for begin, _ in spans]), np.array([begin + size for begin, size in spans])
            self.order, self.reads, self.writes = self.generator.permutation(grid.grid[0]), [], []
            try:
                run(grid, *args, **options)
            except interpreter.InterpreterError as error:
                raise AssertionError(f"{grid.fn.__name__}: {error}") from error
            self.check(grid.fn.__name__)

        monkeypatch.setattr(builder, "set_grid_idx", placed)
        monkeypatch.setattr(executor, "__call__", watched)

    def recorded(self, kind, function):
        def record(builder, pointers, *args):
            mask = args[0] if kind == "reads" else args[1]
            size = pointers.get_element_ty().primitive_bitwidth // 8
            mask = np.broadcast_to(np.asarray(mask.data, bool), pointers.data.shape)
            addresses = np.asarray(pointers.data)[mask].astype(np.int64)[:, None] + np.arange(size)
            span = np.searchsorted(self.begins, addresses, side="right") - 1
            if not ((span >= 0) & (addresses < self.ends[span])).all():
                raise RuntimeError(f"{kind} outside every tensor")  # before it does harm
            getattr(self, kind).append((self.program, addresses.ravel()))
            return function(builder, pointers, *args)

        return record

    def check(self, kernel):
        (readers, read), (writers, wrote) = (self.flat(parts) for parts in (self.reads, self.writes))
        order = np.argsort(wrote, kind="stable")
        wrote, writers = wrote[order], writers[order]
        assert not ((wrote[1:] == wrote[:-1]) & (writers[1:] != writers[:-1])).any(), f"{kernel}: two programs write a byte"
        if len(wrote):
            at = np.searchsorted(wrote, read).clip(max=len(wrote) - 1)
            assert not ((wrote[at] == read) & (writers[at] != readers)).any(), f"{kernel}: a program reads what another writes"
        for begin, end in zip(self.begins, self.ends, strict=True):
            times = self.written.setdefault(int(begin), np.zeros(end - begin, np.int64))
            inside = wrote[(wrote >= begin) & (wrote < end)] - begin
            np.add.at(times[: end - begin], inside, 1)

    @staticmethod
    def flat(parts):
        if not parts:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        return np.concatenate([np.full(len(a), p) for p, a in parts]), np.concatenate([a for _, a in parts])
