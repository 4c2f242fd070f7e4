"""Program run by test_fused: compiles the kernels for GPUs that need not be there. A separate process, without Triton's interpreter."""

import sys

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from pseudomotion.render.cuda import clips as kernels

POINTERS = dict.fromkeys(["pyramid", "table", "frames", "working", "target"], "*fp32")
# Types of images and clips, then C, LAYERS, REDUCES, COLORED, MIXES, PADDING, and the generation.
VARIANTS = [
    ("*u8", "*bf16", 3, 1, False, True, True, "zeros", 80),
    ("*fp16", "*u8", 4, 1, True, False, False, "border", 90),
    ("*bf16", "*fp16", 1, 2, False, False, True, "reflection", 80),
]


def build(kernel, images, clips, channels, layers, reduces, colored, mixes, padding, generation, *, single):
    constants = {"C": channels, "LAYERS": layers, "REDUCES": reduces, "COLORED": colored, "MIXES": mixes, "PADDING": padding}
    constants |= {"ROUND": clips == "*u8", "BLOCK": 1024} | dict.fromkeys(single, 1)
    constants = {name: value for name, value in constants.items() if name in kernel.arg_names}
    types = POINTERS | {"images": images, "source": images, "out": clips} | dict.fromkeys(constants, "constexpr")
    signature = {name: types.get(name, "i32") for name in kernel.arg_names}
    return triton.compile(ASTSource(fn=kernel, signature=signature, constexprs=constants), target=GPUTarget("cuda", generation, 32))


if __name__ == "__main__":
    # Triton takes arguments that are 1 for constants, which are no tensors: sides of one pixel, one frame, no stride.
    single = ("num_frames", "h", "w", "height", "width", "frame_stride", "channel_stride", "pyramid_size")
    for kernel in (kernels.halve, kernels.paint_clips, kernels.step_clips):
        for variant in VARIANTS:
            assert build(kernel, *variant, single=()).asm["cubin"]
        assert build(kernel, *VARIANTS[1], single=single).asm["cubin"]
    sys.stdout.write("ok\n")
