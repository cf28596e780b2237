"""Ranks that share something: locks, queues, pipes, memory, tensors."""

from __future__ import annotations

from typing import Any

from tests.ranks.gates import Gate


def use_lock_and_event(rank: int, lock: Any, event: Any, counter: Any, gate: Gate) -> None:
    """Count under the lock once the event is set."""
    gate.arrive()
    event.wait()
    with lock:
        counter.value += 1


def release(rank: int, semaphore: Any) -> None:
    """Release it once."""
    semaphore.release()


def acquire_lock(rank: int, _other: object, lock: Any) -> None:
    """Show that the lock is one."""
    with lock:
        pass


def hold_twice(rank: int, lock: Any) -> None:
    """Show that the lock may be held twice."""
    with lock, lock:
        pass


def meet(rank: int, barrier: Any) -> None:
    """Wait until all ranks are there."""
    barrier.wait(60)


def return_text(rank: int) -> str:
    """Return something."""
    return "ignored"


def send_args(rank: int, sender: Any, *args: Any) -> None:
    """Send what this rank was given."""
    sender.send((rank, args))


def append_and_put(rank: int, queue: Any, items: list[int]) -> None:
    """Change a list."""
    items.append(rank)
    queue.put((rank, items))


def put_doubled(rank: int, tensor: Any, queue: Any, gate: Gate) -> None:
    """Put twice the tensor, and stay until it was taken."""
    queue.put(tensor * 2)
    gate.pass_through()


def send_back(rank: int, connections: list[tuple[Any, Any]]) -> None:
    """Receive at the pipe of this rank, and send back."""
    receiver, sender = connections[rank]
    sender.send((rank, receiver.recv()))


def append_to(rank: int, names: Any, table: Any) -> None:
    """Write into a manager's list and dict."""
    names.append(rank)
    table[rank] = rank * rank


def write_shared_memory(rank: int, memory: Any) -> None:
    """Write into the byte of this rank."""
    memory.buf[rank] = rank + 1
    memory.close()


def write_shared_array(rank: int, array: Any) -> None:
    """Write into the item of this rank."""
    array[rank] = rank + 1


def add_to_tensor(rank: int, tensor: Any) -> None:
    """Add to the item of this rank, in memory that all share."""
    tensor[rank] += rank + 1


def elastic_wrap(rank: int, args: Any, hows: Any, queues: Any, event: Any, gate: Gate) -> None:
    """Put a result and wait until it was taken, as torch elastic's ranks do, or fail."""
    gate.arrive()
    if hows[rank]:
        how, *rest = hows[rank]
        how(*rest)
    queues[rank].put(args[rank])
    event.wait()


def put_over_feeder(rank: int, queue: Any) -> None:
    """Put more than a pipe holds into a Queue: its thread must have sent all before the rank ends."""
    queue.put((rank, b"x" * 1_000_000))
