"""The messages that fresh interpreters unpickle: if possible one for all ranks, in shared memory."""

from __future__ import annotations

import io
import os
import pickle
from multiprocessing import reduction

from spawnx.memory import append, to_memory
from spawnx.mp import interpreter, pickling

TYPE_CHECKING = False
if TYPE_CHECKING:
    from spawnx.launchers.contract import Order
    from spawnx.launchers.payload import Payloads
    from spawnx.process import RankProcess


class Message:
    """The message that a rank unpickles: multiprocessing's preparation data, then its `Rank`.

    Attributes:
        file: the fd of the memory that holds the message.
        size: its length in bytes.
        fds: the fds that the rank inherits with it, under the same numbers.
    """

    __slots__ = ("fds", "file", "size")

    def __init__(self, file: int, size: int, fds: list[int]) -> None:
        self.file = file
        self.size = size
        self.fds = fds


def command_line(module: str, function: str, file: int, arguments: dict[str, object]) -> list[str]:
    """Return the command line of a fresh interpreter that calls `function(file, **arguments)` of a module of spawnx.

    Writes the pickled arguments to the end of `file`, which is memory that the interpreter inherits.
    """
    data = pickle.dumps(arguments)
    at = os.lseek(file, 0, os.SEEK_END)
    append(file, memoryview(data))
    return interpreter.command(module, function, file, at, len(data))


class Messages:
    """The messages of one call.

    Attributes:
        tracker: the fd of this process's resource tracker, which the ranks use as well.
    """

    def __init__(self, order: Order, payloads: Payloads) -> None:
        self._order = order
        self._payloads = payloads
        self.tracker = interpreter.resource_tracker_fd()
        self._shared: Message | None = None
        self._files: list[int] = []

    def of(self, rank: RankProcess) -> Message:
        """Return the message of a rank. All ranks have the same one if the payload may be shared."""
        rank.supervision.keepalive = (self._order.fn, self._order.args)
        if self._shared is not None:
            return self._shared
        rank.give(self._payloads.for_rank())
        collector, buffer = pickling.Collector("spawn"), io.BytesIO()
        collector.dump(reduction.ForkingPickler(buffer), interpreter.preparation_data(rank.name))
        collector.dump(reduction.ForkingPickler(buffer), rank)
        file = to_memory("spawnx-message", buffer.getbuffer())
        self._files.append(file)
        message = Message(file, buffer.tell(), collector.fds)
        if self._payloads.shareable:
            self._shared = message
        return message

    def close(self) -> None:
        """Release the messages. Call it after every rank has inherited its message."""
        for file in self._files:
            os.close(file)
