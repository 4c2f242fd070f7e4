"""Program run by test_fused: compiles the kernels for GPUs that need not be there. A separate process, without Triton's interpreter.

It runs on every Triton from 3.2 on: ``PYTHONPATH`` may name another than the installed one.
"""

import inspect
import sys

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from pseudomotion.render.cuda import clips as kernels

OLD = "constants" in inspect.signature(ASTSource.__init__).parameters  # before 3.3
POINTERS = {"table": "*fp32", "frames": "*fp32", "working": "*i64"}
# Types of images, words and clips, then C, LAYERED, MIXES, PADDING, and the generation.
VARIANTS = [
    ("*u8", "*i32", "*bf16", 3, False, False, "zeros", 90),
    ("*u8", "*i32", "*bf16", 3, True, True, "zeros", 80),
    ("*fp16", "*i64", "*u8", 4, True, False, "border", 75),
    ("*bf16", "*i64", "*fp32", 1, False, True, "reflection", 120),
]
# Triton takes arguments that are 1 for constants, which are no tensors: sides of one pixel, no stride.
SINGLE = ("h", "w", "frame_stride", "channel_stride", "column_stride")


def build(kernel, images, words, clips, channels, layered, mixes, padding, generation, *, single=(), aligned=False, assembly=True):
    """The compiled kernel. ``aligned``: arguments are multiples of 16, as in a launch for 224 x 224 pixels."""
    constants = {"C": channels, "LAYERED": layered, "MIXES": mixes, "PADDING": padding, "PITCH": 232, "WPITCH": 232}
    constants |= {"ASM": assembly, "ROWS": 32, "COLS": 32, "VEC": 2, "BLOCK": 256} | dict.fromkeys(single, 1)
    constants = {name: value for name, value in constants.items() if name in kernel.arg_names}
    types = POINTERS | {"images": images, "packed": words, "out": clips}
    signature = {name: types.get(name, "i32") for name in kernel.arg_names if name not in constants}
    place = {name: position for position, name in enumerate(kernel.arg_names)}
    known = [name for name in signature if name not in (kernel.do_not_specialize or ())] if aligned else []
    if OLD:
        source = ASTSource(fn=kernel, signature=signature, constants=constants)
        if known:
            from triton.backends.compiler import AttrsDescriptor

            source.attrs = AttrsDescriptor.from_dict({"arg_properties": {"tt.divisibility": [place[name] for name in known]}, "cls": "AttrsDescriptor"})
    else:
        signature |= dict.fromkeys(constants, "constexpr")
        attributes = {(place[name],): [["tt.divisibility", 16]] for name in known}
        source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=attributes)
    return triton.compile(source, target=GPUTarget("cuda", generation, 32), options={"num_warps": 4})


if __name__ == "__main__":
    for kernel in (kernels.pack, kernels.halve, kernels.paint_clips, kernels.step_clips):
        for variant in VARIANTS:
            if kernel is kernels.halve and variant[1] == "*i32":
                continue  # reduced copies are never bytes
            assert build(kernel, *variant).asm["cubin"]
        assert build(kernel, *VARIANTS[2], single=SINGLE, assembly=False).asm["cubin"]
    sys.stdout.write("ok\n")
