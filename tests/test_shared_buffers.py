"""Batches that worker processes hand over in shared memory: what arrives, when memory is used again, and what a killed process leaves."""

import multiprocessing
import os
import threading
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from pseudomotion import PMG
from pseudomotion.shared_buffers import SharedBuffers
from pseudomotion.source import read_batches


class Pair(NamedTuple):
    images: torch.Tensor
    about: dict


class Counting:
    """Batches of one shape whose values are their ids."""

    def __len__(self):
        return 10**6

    def get(self, ids):
        return Pair(ids[:, None, None].expand(-1, 50, 40).float(), {"first": ids[0].clone()})


PARTS = [torch.arange(3) + 3 * k for k in range(24)]


def check(items, ids):
    assert torch.equal(items.images, Counting().get(ids).images)
    assert items.about["first"] == ids[0]


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize(
    "tensor",
    [
        torch.rand(3, 4, 5).transpose(0, 2),
        torch.rand(2, 3, 4, 5).permute(0, 2, 3, 1),
        torch.rand(6, 4)[::2, 1:],
        torch.rand(3, 1).expand(3, 4),
        torch.tensor(3.5),
        torch.empty(2, 0, 3),
        torch.arange(5) > 2,
        torch.rand(7).bfloat16(),
        torch.rand(3).to(torch.complex64).conj(),
        torch.rand(3, requires_grad=True),
        torch.eye(3).to_sparse(),
        torch.nn.Parameter(torch.rand(2)),
    ],
)
def test_every_tensor_arrives_as_it_was(tensor):
    """Beside another one, so that it does not begin where the buffer begins."""
    first, arrived = SharedBuffers().pack((torch.zeros(3, dtype=torch.uint8), tensor)).unpack()
    assert first.tolist() == [0, 0, 0]
    assert type(arrived) is type(tensor)
    assert arrived.dtype == tensor.dtype
    assert arrived.requires_grad == tensor.requires_grad
    assert torch.equal(arrived.to_dense(), tensor.to_dense())
    if tensor.layout == torch.strided:
        assert arrived.stride() == torch.empty_like(tensor).stride()


def test_plans_arrive_whole():
    plan = PMG(num_frames=3, size=8).plan((4, 3, 10, 10), ids=torch.arange(4))
    assert str(SharedBuffers().pack([plan]).unpack()[0]) == str(plan)


def test_a_buffer_is_used_again_once_its_batch_and_all_views_are_gone():
    buffers = SharedBuffers()
    places = [buffers.pack(torch.full((4, 8), k)).unpack().data_ptr() for k in range(5)]
    assert len(set(places)) == 1
    view = buffers.pack(torch.full((4, 8), 7)).unpack()[1]
    for k in range(3):
        other = buffers.pack(torch.full((4, 8), k)).unpack()
        assert other.data_ptr() != places[0], k
    assert view.tolist() == [7] * 8
    del view
    del other
    assert len({buffers.pack(torch.full((4, 8), k)).buffer.data_ptr() for k in range(2)}) == 2  # both are sent, and not yet unpacked


def test_buffers_that_are_too_small_are_replaced():
    buffers = SharedBuffers()
    for size in (10, 10_000, 300, 20_000):
        assert buffers.pack(torch.arange(size)).unpack().tolist() == list(range(size))
        assert len(buffers._buffers) == 1


def test_pinning_frees_the_buffer(monkeypatch):
    """As a loader's thread does it for a GPU; here pinned memory is ordinary memory."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", torch.Tensor.clone)
    buffers = SharedBuffers()
    pinned = [buffers.pack(torch.full((4, 8), k)).pin_memory() for k in range(3)]
    assert len({packed.buffer.data_ptr() for packed in pinned}) == 1
    assert [packed.unpack()[0, 0].item() for packed in pinned] == [0, 1, 2]


def test_a_forked_process_does_not_free_what_its_parent_uses():
    """Python drops what other threads of the parent hold when a child begins."""
    buffers, held, done = SharedBuffers(), threading.Event(), threading.Event()

    def hold():
        batch = buffers.pack(torch.zeros(4)).unpack()
        held.set()
        done.wait()
        del batch

    thread = threading.Thread(target=hold, daemon=True)
    thread.start()
    held.wait()
    batch = buffers.pack(torch.ones(4)).unpack()
    if not (child := os.fork()):
        del batch
        os._exit(0)
    os.waitpid(child, 0)
    assert [int(buffer[-1]) for buffer in buffers._buffers] == [1, 1]
    done.set()
    thread.join()
    assert [int(buffer[-1]) for buffer in buffers._buffers] == [0, 1]
    assert batch.tolist() == [1] * 4


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_receiver_maps_a_few_buffers_for_many_batches(num_workers, monkeypatch):
    """No more than the loader has on their way from a worker, the one in use, and the one before it."""
    mapped = []
    make = torch.UntypedStorage._new_shared_fd_cpu
    monkeypatch.setattr(torch.UntypedStorage, "_new_shared_fd_cpu", lambda *args: mapped.append(args) or make(*args))
    items = None
    for items, ids in read_batches(Counting(), PARTS, num_workers):
        check(items, ids)
    assert num_workers <= len(mapped) <= 4 * num_workers
    check(items, ids)


def test_batches_that_are_kept_stay_what_they_are():
    for items, ids in list(read_batches(Counting(), PARTS, 2)):
        check(items, ids)


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="shared memory has no names in a folder here")
def test_shared_memory_has_no_name_that_a_killed_process_could_leave():
    reading = read_batches(Counting(), PARTS, 1)
    check(*next(reading))
    pids = [os.getpid(), *(worker.pid for worker in multiprocessing.active_children())]
    assert len(pids) == 2
    assert not [path for pid in pids for path in Path("/dev/shm").glob(f"torch_{pid}_*")]
    reading.close()
