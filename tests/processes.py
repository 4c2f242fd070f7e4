"""Training runs in processes of their own, forked from a server that has imported everything once."""

import contextlib
import multiprocessing
import os
import socket
import sys
import time
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["pseudomotion.train.pretrain"])


def pretraining(arguments, log, *, group=False, **environment):
    """A started process that runs ``pmg-pretrain``; what it says goes to the file ``log``; with ``group``, it leads a group of its own."""
    child = CONTEXT.Process(target=_run, args=(list(map(str, arguments)), str(log), group, environment))
    child.start()
    return child


def in_group(leader):
    """The processes of a group."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[2]) == leader and fields[0] != "Z":
                found.append(int(stat.parent.name))
    return found


def ended(processes, seconds=30):
    """Whether processes are over, or are so soon."""
    deadline = time.monotonic() + seconds
    while alive := [process for process in processes if Path(f"/proc/{process}").exists() and _state(process) != "Z"]:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return not alive


def _state(process):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    return "Z"


def ranks(number):
    """What tells each of several processes its place among them."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    common = {"WORLD_SIZE": str(number), "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    return [common | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(number)]


def _run(arguments, log, group, environment):
    if group:
        os.setsid()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ.update(environment)

    import torch

    from pseudomotion.train.cli import pretrain

    torch.set_num_threads(1)
    sys.argv = ["pmg-pretrain", *arguments]
    sys.exit(pretrain())
