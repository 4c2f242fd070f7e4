"""Program run by test_fused: compiles the kernels for GPUs that need not be there, and reads their machine code.

It runs on every Triton from 3.2 on: ``PYTHONPATH`` may name another than the installed one. A separate process, because there Triton's
interpreter must be off.
"""

import inspect
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from pseudomotion.render.cuda import clips as kernels

OLD = "constants" in inspect.signature(ASTSource.__init__).parameters  # before 3.3
NEWEST = 90 if OLD else 120
POINTERS = {"table": "*fp32", "frames": "*fp32", "working": "*i64"}
# Types of images, words and clips, then C, LAYERED, SHAPED, BENDS, MIXES, PADDING, and the generation.
PLAIN = ("*u8", "*i32", "*bf16", 3, False, False, False, False, "zeros", 90)
EVERYTHING = ("*u8", "*i32", "*bf16", 3, True, True, True, True, "zeros", NEWEST)
VARIANTS = [
    ("*fp16", "*i64", "*u8", 4, True, False, False, False, "border", 75),
    ("*bf16", "*i64", "*fp32", 1, False, False, True, True, "reflection", 80),
]
# Triton takes arguments that are 1 for constants, which are no tensors: sides of one pixel, no stride.
SINGLE = ("h", "w", "frame_stride", "channel_stride", "column_stride")
PIXELS = 32 * 32 / (4 * 32)  # that a thread paints of a band


def build(kernel, images, words, clips, channels, layered, shaped, bends, mixes, padding, generation, *, single=(), aligned=False):
    """The compiled kernel. ``aligned``: arguments are multiples of 16, as in a launch for 224 x 224 pixels."""
    constants = {"C": channels, "LAYERED": layered, "SHAPED": shaped, "BENDS": bends, "MIXES": mixes, "PADDING": padding}
    constants |= {
        "BYTES": words == "*i32" and not (layered or bends or mixes),
        "PITCH": 232,
        "WPITCH": 232,
        "ASM": not single,
        "ROWS": 32,
        "COLS": 32,
        "VEC": 2,
        "BLOCK": 256,
        "LINES": 4,
    }
    constants = {name: value for name, value in (constants | dict.fromkeys(single, 1)).items() if name in kernel.arg_names}
    types = POINTERS | {"images": images, "packed": words, "out": clips}
    signature = {name: types.get(name, "i32") for name in kernel.arg_names if name not in constants}
    known = {kernel.arg_names.index(name) for name in signature if name not in (kernel.do_not_specialize or ())} if aligned else set()
    if OLD:
        source = ASTSource(fn=kernel, signature=signature, constants=constants)
    else:
        attributes = {(place,): [["tt.divisibility", 16]] for place in known}
        source = ASTSource(fn=kernel, signature=signature | dict.fromkeys(constants, "constexpr"), constexprs=constants, attrs=attributes)
    return triton.compile(source, target=GPUTarget("cuda", generation, 32), options={"num_warps": 4})


def budget(kernel, *variant):
    """What a band costs: the shortest and the longest way through its instructions, each per pixel, and what the kernel occupies."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(build(kernel, *variant, aligned=True).asm["cubin"])
        tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
        code, usage = (
            subprocess.run([tool, option, file.name], capture_output=True, text=True).stdout for option in ("-sass", "-res-usage")
        )
    lines = [(int(address, 16), text) for address, text in re.findall(r"^\s+/\*([0-9a-f]{4,})\*/\s+(.*?);", code, re.M)]
    place = {address: index for index, (address, _) in enumerate(lines)}
    jumps = {
        place[a]: place[int(text.split("0x")[-1], 16)]
        for a, text in lines
        if re.match(r"(@!?U?P\d )?\s*BRA", text) and int(text.split("0x")[-1], 16) in place
    }
    end, begin = max((index, target) for index, target in jumps.items() if target < index)  # the loop over bands
    costs = {end: [Counter(length=1)] * 2}
    for index in range(end - 1, begin - 1, -1):
        text = lines[index][1]
        following = [index + 1] if text.startswith("@") or not re.match("BRA|EXIT", text) else []
        following += [jumps[index]] if index in jumps else []
        ways = [costs[target] for target in following if target in costs]
        if ways:
            operation = re.sub(r"^@!?U?P\w+\s+", "", text).split()[0].split(".")[0]
            ends = (
                min((way[0] for way in ways), key=lambda way: way["length"]),
                max((way[1] for way in ways), key=lambda way: way["length"]),
            )
            costs[index] = [way + Counter({"length": 1, operation: 1}) for way in ends]
    shortest, longest = ({name: count / PIXELS for name, count in way.items()} for way in costs[begin])
    registers, stack = re.search(r"REG:(\d+) STACK:(\d+)", usage).groups()
    return {"shortest": shortest, "longest": longest, "registers": int(registers), "stack": int(stack)}


if __name__ == "__main__":
    for kernel in (kernels.paint_clips, kernels.step_clips):
        assert build(kernel, *EVERYTHING).asm["cubin"]
        for variant in VARIANTS:
            assert build(kernel, *variant).asm["cubin"]
    for kernel in (kernels.pack, kernels.halve):
        assert build(kernel, *VARIANTS[0]).asm["cubin"]
    assert build(kernels.pack, *PLAIN).asm["cubin"]
    assert build(kernels.step_clips, *VARIANTS[1], single=SINGLE).asm["cubin"]
    found = {} if OLD else {name: budget(getattr(kernels, name), *PLAIN) for name in ("paint_clips", "step_clips")}
    sys.stdout.write(json.dumps(found) + "\n")
