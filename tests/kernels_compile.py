"""Program run by test_fused_compiled: compiles the kernels for GPUs that need not be there, and reads their machine code.

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

import torch
import triton
from fake_driver import FakeDriver
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from pseudomotion import PMG
from pseudomotion import render as rendering
from pseudomotion.render.cuda import clips as kernels
from pseudomotion.render.cuda import launch

OLD = "constants" in inspect.signature(ASTSource.__init__).parameters  # before 3.3
NEWEST = 90 if OLD else 120
POINTERS = {"table": "*fp32", "frames": "*fp32", "working": "*i64"}
# Types of images, words and clips, then C, LAYERED, SHAPED, BENDS, MIXES, PADDING, and the generation.
EVERYTHING = ("*u8", "*i32", "*bf16", 3, True, True, True, True, "zeros", NEWEST)
SHAPED = ("*fp16", "*i64", "*u8", 4, True, False, False, False, "border", 75)
BENT = ("*bf16", "*i64", "*fp32", 1, False, False, True, True, "reflection", 80)
# Triton takes arguments that are 1 for constants, which are no tensors: sides of one pixel, no stride.
SINGLE = ("h", "w", "frame_stride", "channel_stride", "column_stride")
PIXELS = launch.ROWS * launch.COLS / (32 * launch.WARPS)  # that a thread paints of a band
BATCHES = 40


def build(kernel, images, words, clips, channels, layered, shaped, bends, mixes, padding, generation, *, single=()):
    """Compile a kernel for a generation of GPUs, as for arguments of which nothing is known; those in ``single`` are 1."""
    constants = {"C": channels, "LAYERED": layered, "SHAPED": shaped, "BENDS": bends, "MIXES": mixes, "PADDING": padding}
    constants |= {
        "CUT": layered and channels == 3,
        "BYTES": False,
        "PITCH": 232,
        "WPITCH": 232,
        "ASM": not single,
        "BLOCK": 256,
        "LINES": 4,
    }
    constants |= {"ROWS": launch.ROWS, "COLS": launch.COLS, "VEC": launch.VEC}
    constants = {name: value for name, value in (constants | dict.fromkeys(single, 1)).items() if name in kernel.arg_names}
    types = POINTERS | {"images": images, "packed": words, "out": clips}
    signature = {name: types.get(name, "i32") for name in kernel.arg_names if name not in constants}
    if OLD:
        source = ASTSource(fn=kernel, signature=signature, constants=constants)
    else:
        source = ASTSource(fn=kernel, signature=signature | dict.fromkeys(constants, "constexpr"), constexprs=constants)
    made = triton.compile(source, target=GPUTarget("cuda", generation, 32), options={"num_warps": launch.WARPS})
    assert made.asm["cubin"]


def render_batches():
    """Render batches of changing size and draws with real kernels and a driver that does not run them; return what was counted."""
    driver, checked, names = FakeDriver(), Counter(), ("pack", "halve", "paint_clips", "step_clips")
    for name in names:
        getattr(kernels, name).add_pre_run_hook(lambda *args, name=name, **options: checked.update([name]))
    launch._assembles = lambda device: True
    rendering._compiled_by = lambda *args: "triton"
    transforms = ("zoom", "affine", "perspective", "color_jitter")
    pmg = PMG(transforms, 4, 224, crop=(0.2, 1.0), renderer="fused", mean=(0.5,) * 3, std=(0.2,) * 3, dtype=torch.bfloat16)
    reduced = []
    for batch in range(BATCHES):
        images = torch.empty(2 + batch % 3, 3, 384, 384, dtype=torch.uint8)
        plan = pmg.plan(images.shape, ids=torch.arange(len(images)) + 10 * batch)
        reduced.append(plan.reduces)
        pmg.render(images, plan)
    counted = {name: {"launches": driver.launches[name], "checked": checked[name], "compiled": len(driver.kernels[name])} for name in names}
    return driver, counted | {"reduced": sum(reduced)}


def budget(cubin):
    """What a band costs: the shortest and the longest way through its instructions, each per pixel, and what the kernel occupies."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(cubin)
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
        build(kernel, *EVERYTHING)
    build(kernels.paint_clips, *SHAPED)
    build(kernels.step_clips, *BENT, single=SINGLE)
    build(kernels.pack, *SHAPED)
    build(kernels.halve, *SHAPED)
    driver, counted = render_batches()
    # Of the variants, the one that reads bytes is shorter than the one that reads two levels of a pyramid.
    budgets = {
        name: min(map(budget, driver.kernels[name]), key=lambda found: found["longest"]["length"])
        for name in ("paint_clips", "step_clips")
        if not OLD
    }
    sys.stdout.write(json.dumps({"counted": counted, "budgets": budgets}) + "\n")
