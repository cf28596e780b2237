# -- feeder: A queue's feeder has items that are not yet written, and somebody reads them.
import multiprocessing

def take(queue):
    with open("out", "w") as file:
        for _ in range(50):
            file.write(str(len(queue.get())))

def work():
    global queue
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    context.Process(target=take, args=(queue,)).start()
    for n in range(50):
        queue.put("x" * 10_000)

# -- feeder without a reader: A queue's feeder has an item that nobody reads.
import multiprocessing

def work():
    global queue
    queue = multiprocessing.get_context("fork").Queue()
    queue.put("item")
    print("told")

# -- cancelled: A queue's feeder need not be joined.
import multiprocessing

def work():
    global queue
    queue = multiprocessing.get_context("fork").Queue()
    queue.cancel_join_thread()
    queue.put("x" * 1_000_000)
    print("told")

# -- unpicklable: A queue is given what can't be pickled.
import multiprocessing

def work():
    global queue
    queue = multiprocessing.get_context("fork").Queue()
    queue.put(lambda: None)
    queue.close()
    queue.join_thread()
    print("told")

# -- process that runs: A process that the rank has started ends after it.
import multiprocessing, os, select

def late(reader):
    select.select([reader], [], [])
    with open("out", "w") as file:
        file.write("told")

def work():
    global reader, writer
    reader, writer = os.pipe()
    context = multiprocessing.get_context("fork")
    context.Process(target=late, args=(reader,)).start()
    print("main")
    os.write(writer, b"x")

# -- daemonic process: A daemonic process of the rank's is terminated.
import multiprocessing, os, signal

def stay(writer):
    os.write(writer, b"x")
    signal.pause()

def work():
    global process
    reader, writer = os.pipe()
    process = multiprocessing.get_context("fork").Process(target=stay, args=(writer,), daemon=True)
    process.start()
    os.read(reader, 1)
    print("told")

# -- Finalize: Finalizers of multiprocessing have priorities.
from multiprocessing.util import Finalize

def work():
    Finalize(None, print, ("low",), exitpriority=0)
    Finalize(None, print, ("high",), exitpriority=10)
    Finalize(None, print, ("last",), exitpriority=-10)

# -- Finalize without priority: A finalizer of multiprocessing has no priority, and its object lives.
from multiprocessing.util import Finalize

class Thing:
    pass

def work():
    global thing
    thing = Thing()
    Finalize(thing, print, ("never told",))

# -- Finalize of a global: A finalizer of multiprocessing has a priority, and its object lives.
from multiprocessing.util import Finalize

class Thing:
    pass

def work():
    global thing
    thing = Thing()
    Finalize(thing, print, ("told",), exitpriority=1)

# -- Finalize that raises: A finalizer of multiprocessing raises.
from multiprocessing.util import Finalize

def work():
    Finalize(None, int, ("no number",), exitpriority=5)
    Finalize(None, print, ("told",), exitpriority=1)

# -- manager: A manager's server runs in a process of its own.
import multiprocessing
from multiprocessing.managers import SyncManager

def work():
    global manager, values
    manager = SyncManager(("127.0.0.1", 0), ctx=multiprocessing.get_context("fork"))
    manager.start()
    values = manager.list([1, 2])
    values.append(3)
    print(list(values))

# -- shared memory: A block of shared memory is unlinked, and still mapped.
from multiprocessing.shared_memory import SharedMemory

def work():
    global memory
    memory = SharedMemory(create=True, size=10)
    memory.buf[0] = 42
    memory.unlink()
    print(memory.buf[0])

# -- shared memory with a view: A view of shared memory is alive at the end.
from multiprocessing.shared_memory import SharedMemory

def work():
    global memory, view
    memory = SharedMemory(create=True, size=10)
    view = memory.buf[:4]
    memory.unlink()

# -- connection: A connection has bytes that are not yet read.
import multiprocessing

def work():
    global ends
    ends = multiprocessing.Pipe()
    ends[0].send("never read")
    print("told")

# -- Value: A shared value has a lock that is held.
import multiprocessing

def work():
    global value
    value = multiprocessing.get_context("fork").Value("i", 1)
    value.get_lock().acquire()
    value.value = 42
    print(value.value)

# -- after fork: What was registered with `multiprocessing.util.register_after_fork` has a `__del__`.
from multiprocessing import util

class Told:
    def __del__(self):
        print("deleted")

def work():
    global told
    told = Told()
    util.register_after_fork(told, print)

# -- queue of threads: A queue of threads holds an object with `__del__`.
import queue

class Told:
    def __del__(self):
        print("deleted")

def work():
    global items
    items = queue.SimpleQueue()
    items.put(Told())

# -- logger of multiprocessing: multiprocessing logs to stderr.
import multiprocessing

def work():
    multiprocessing.log_to_stderr().warning("told")
