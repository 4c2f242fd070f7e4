"""Training runs in processes of their own, forked from a server that has imported everything once."""

import multiprocessing
import os
import socket
import sys

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["pseudomotion.train.pretrain"])


def pretraining(arguments, log, **environment):
    """A started process that runs ``pmg-pretrain``; what it says goes to the file ``log``."""
    child = CONTEXT.Process(target=_run, args=(list(map(str, arguments)), str(log), environment))
    child.start()
    return child


def ranks(number):
    """What tells each of several processes its place among them."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    common = {"WORLD_SIZE": str(number), "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    return [common | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(number)]


def _run(arguments, log, environment):
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ.update(environment)

    import torch

    from pseudomotion.train.cli import pretrain

    torch.set_num_threads(1)
    sys.argv = ["pmg-pretrain", *arguments]
    sys.exit(pretrain())
