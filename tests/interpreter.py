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


def poison_allocations(monkeypatch):
    """Fill new memory with NaN, or 77 for integers, so that unwritten values are noticed."""

    def poisoned(function):
        def allocate(*args, **options):
            made = function(*args, **options)
            return made.fill_(torch.nan if made.is_floating_point() else 77)

        return allocate

    monkeypatch.setattr(torch.Tensor, "new_empty", poisoned(torch.Tensor.new_empty))
    monkeypatch.setattr(torch, "empty", poisoned(torch.empty))


def poison_between_launches(launch, monkeypatch):
    """Before every launch of ``step_clips``, spoil the working frames that it must write, or must not read; check their border after it.

    It must write the half of its frame. In the first frame it must not read the other half either, nor ever the slots beyond its clips.
    Spoiled pixels are about -0.5.
    """
    call = launch._Kernel.__call__

    def spoil(kernel, programs, *args):
        names = kernel.kernel.arg_names
        if "working" not in names:
            return call(kernel, programs, *args)
        given = dict(zip(names, args, strict=False))
        h, w, slots, frame = given["h"], given["w"], given["slots"], given["frame"]
        halves = given["working"].view(2, slots, h + 3, kernel.constants["WPITCH"])
        inside = halves[..., 1 : h + 1, 1 : w + 1]
        clips = programs // (-(-w // launch.COLS) * -(-h // (given["bands"] * launch.ROWS)))
        inside[frame % 2] = 0
        inside[:, clips:] = 0
        if frame == 0:
            inside[:] = 0
        call(kernel, programs, *args)
        border = halves.clone()
        border[..., 1 : h + 1, 1 : w + 1] = launch.layout.BLACK.value
        assert (border == launch.layout.BLACK.value).all(), "the border of working frames is written"
        return None

    monkeypatch.setattr(launch._Kernel, "__call__", spoil)


def contract(monkeypatch):
    """Round products once, together with the sum that they are part of, as a GPU's fused multiply-add does. The interpreter rounds twice.

    Of two products that are added, the first is not rounded: compilers choose either. Products of float32 are exact in float64.
    """
    builder = interpreter.InterpreterBuilder
    multiply, broadcast = builder.create_fmul, builder.create_broadcast

    def product(self, a, b):
        made = multiply(self, a, b)
        if made.data.dtype == np.float32:
            made.exact = a.data.astype(np.float64) * b.data
        return made

    def spread(self, value, shape):
        made = broadcast(self, value, shape)
        if hasattr(value, "exact"):
            made.exact = np.broadcast_to(value.exact, shape)
        return made

    def fused(add, sign):
        def total(self, a, b):
            if not (hasattr(a, "exact") or hasattr(b, "exact")):
                return add(self, a, b)
            first = a.exact if hasattr(a, "exact") else a.data.astype(np.float64)
            second = b.data.astype(np.float64) if hasattr(a, "exact") else b.exact
            return interpreter.TensorHandle((first + sign * second).astype(np.float32), a.dtype.scalar)

        return total

    monkeypatch.setattr(builder, "create_fmul", product)
    monkeypatch.setattr(builder, "create_broadcast", spread)
    monkeypatch.setattr(builder, "create_fadd", fused(builder.create_fadd, 1))
    monkeypatch.setattr(builder, "create_fsub", fused(builder.create_fsub, -1))
