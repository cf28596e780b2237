# -- joined: A thread has ended.
import threading

def work():
    thread = threading.Thread(target=print, args=("thread",))
    thread.start()
    thread.join()
    print("main")

# -- outlives: A thread that is not a daemon outlives the function.
import threading

def work():
    released = threading.Event()
    def late():
        released.wait()
        print("thread")
    threading.Thread(target=late).start()
    print("main")
    released.set()

# -- waits for the main thread: A thread waits until the main thread has come to its end.
import threading

def late():
    threading.main_thread().join()
    print("thread", threading.main_thread().is_alive())

def work():
    threading.Thread(target=late).start()
    print("main")

# -- starts another: A thread that outlives the function starts another one.
import threading

def second():
    print("second")

def first():
    threading.main_thread().join()
    threading.Thread(target=second).start()

def work():
    threading.Thread(target=first).start()

# -- raises: A thread raises.
import threading

def work():
    thread = threading.Thread(target=int, args=("no number",), name="raising")
    thread.start()
    thread.join()

# -- raises with a hook: A thread raises, and the hook of `threading` is the user's.
import threading

def work():
    threading.excepthook = lambda args: print("hook", args.exc_type.__name__)
    thread = threading.Thread(target=int, args=("no number",))
    thread.start()
    thread.join()

# -- exits: A thread calls `sys.exit`.
import sys, threading

def work():
    thread = threading.Thread(target=sys.exit, args=(3,))
    thread.start()
    thread.join()
    print("main")

# -- daemon that waits: A daemon waits for ever.
import threading

def work():
    print("told")
    threading.Thread(target=threading.Event().wait, daemon=True).start()

# -- daemon that holds a lock: A daemon holds a lock of the rank's for ever.
import threading

lock = threading.Lock()

def hold(held):
    with lock:
        held.set()
        threading.Event().wait()

def work():
    held = threading.Event()
    threading.Thread(target=hold, args=(held,), daemon=True).start()
    held.wait()
    print("told")

# -- daemon that computes: A daemon computes for ever.
import threading

def compute(begun):
    begun.set()
    while True:
        sum(range(100))

def work():
    begun = threading.Event()
    threading.Thread(target=compute, args=(begun,), daemon=True).start()
    begun.wait()
    print("told")

# -- daemon that prints: A daemon prints into a file of its own for ever.
import os, threading

def write(begun):
    with open(os.devnull, "w") as file:
        while True:
            print("noise", file=file)
            begun.set()

def work():
    begun = threading.Event()
    threading.Thread(target=write, args=(begun,), daemon=True).start()
    begun.wait()
    print("told")

# -- daemon with a file: A daemon has a file with a full buffer in its frame.
import threading

def write(begun):
    file = open("out", "w")
    file.write("in the frame of a thread")
    begun.set()
    threading.Event().wait()

def work():
    begun = threading.Event()
    threading.Thread(target=write, args=(begun,), daemon=True).start()
    begun.wait()

# -- daemon with a global file: A daemon waits, and a global file has a full buffer.
import threading

def work():
    global file
    file = open("out", "w")
    file.write("told")
    threading.Thread(target=threading.Event().wait, daemon=True).start()

# -- daemon with __del__: A daemon waits, and a global object has a `__del__`.
import threading

class Told:
    def __del__(self):
        print("deleted")

def work():
    global told
    told = Told()
    threading.Thread(target=threading.Event().wait, daemon=True).start()

# -- daemon in C: A daemon is blocked in a read of a pipe.
import os, threading

def work():
    global pipe
    pipe = os.pipe()
    threading.Thread(target=os.read, args=(pipe[0], 1), daemon=True).start()
    print("told")

# -- daemon in input: A daemon waits in `input` at a terminal, where it holds a FILE of libc.
import os, pty, sys, threading, time

def work():
    global master
    master, slave = pty.openpty()
    for fd in (0, 1, 2):
        os.dup2(slave, fd)
    sys.stdin, sys.stdout = open(0), open(1, "w")
    threading.Thread(target=input, args=("prompt",), daemon=True).start()
    os.read(master, 6)
    # Now it is about to read: libc takes the lock a moment later.
    time.sleep(0.05)

# -- daemon in getc: A daemon waits in a function of libc that holds a FILE.
import ctypes, os, threading, time

def work():
    global pipe, file
    pipe = os.pipe()
    libc = ctypes.CDLL(None)
    libc.fdopen.restype = ctypes.c_void_p
    file = ctypes.c_void_p(libc.fdopen(pipe[0], b"r"))
    threading.Thread(target=libc.fgetc, args=(file,), daemon=True).start()
    time.sleep(0.05)
    print("told")

# -- Timer: A timer has yet to fire.
import threading

def work():
    print("main")
    threading.Timer(0.05, print, ("fired",)).start()

# -- Timer that is a daemon: A timer that is a daemon fires too late.
import threading

def work():
    timer = threading.Timer(60, print, ("never fired",))
    timer.daemon = True
    timer.start()
    print("main")

# -- local: An object with `__del__` is in the local storage of the main thread.
import threading

class Told:
    def __del__(self):
        print("deleted")

storage = threading.local()

def work():
    storage.told = Told()

# -- local of an ended thread: An object with `__del__` was in the storage of a thread that has ended.
import threading

class Told:
    def __del__(self):
        print("deleted")

storage = threading.local()

def keep():
    storage.told = Told()

def work():
    thread = threading.Thread(target=keep)
    thread.start()
    thread.join()
    print("joined")

# -- subclass of local: A subclass of `threading.local` has a `__del__`.
import threading

class Told(threading.local):
    def __del__(self):
        print("deleted")

def work():
    global storage
    storage = Told()

# -- low level: A thread of `_thread` has ended.
import _thread

def work():
    lock = _thread.allocate_lock()
    lock.acquire()
    def run():
        print("thread")
        lock.release()
    _thread.start_new_thread(run, ())
    lock.acquire()
    print("main")

# -- register at exit: A function of `threading._register_atexit` is called.
import threading

def work():
    threading._register_atexit(print, "told")

# -- barrier: Two threads meet at a barrier after the function has returned.
import threading

barrier = threading.Barrier(2)

def meet(name):
    if barrier.wait() == 0:
        print("met")

def work():
    for name in "ab":
        threading.Thread(target=meet, args=(name,)).start()

# -- atexit in a thread: A thread that outlives the function registers with atexit.
import atexit, threading

def late():
    threading.main_thread().join()
    atexit.register(print, "exit")

def work():
    threading.Thread(target=late).start()
    print("main")

# -- atexit starts one: A function of atexit starts a thread that it joins.
import atexit, threading

def start():
    try:
        thread = threading.Thread(target=print, args=("thread",))
        thread.start()
        thread.join()
    except RuntimeError as error:
        print(type(error).__name__)

def work():
    atexit.register(start)

# -- queue listener: A thread takes from a queue until it is given None.
import queue, threading

items = queue.Queue()

def take():
    for item in iter(items.get, None):
        print(item)

def work():
    threading.Thread(target=take).start()
    for item in (1, 2, 3, None):
        items.put(item)

# -- object of a thread: An object with `__del__` is an attribute of a thread that is kept.
import threading

class Told:
    def __del__(self):
        print("deleted")

def work():
    global thread
    thread = threading.Thread(target=print, args=("ran",))
    thread.told = Told()
    thread.start()
    thread.join()
