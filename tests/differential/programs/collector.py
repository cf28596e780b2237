# -- disabled: The collector is disabled, and a cycle has a `__del__`.
import gc

class Told:
    def __del__(self):
        print("deleted")

def work():
    gc.disable()
    told = Told()
    told.self = told

# -- frozen: All objects of the rank are frozen.
import gc

class Told:
    def __del__(self):
        print("deleted")

def work():
    global told
    told = Told()
    gc.freeze()

# -- frozen cycle: A cycle with `__del__` is frozen.
import gc

class Told:
    def __del__(self):
        print("deleted")

def work():
    told = Told()
    told.self = told
    gc.freeze()

# -- frozen file: A file with a full buffer is frozen.
import gc

def work():
    global file
    file = open("out", "w")
    file.write("told")
    gc.freeze()

# -- unfrozen: Everything is unfrozen.
import gc

class Told:
    def __del__(self):
        print("deleted")

def work():
    global told
    told = Told()
    gc.unfreeze()

# -- callback: A callback of the collector's has a `__del__`.
import gc

class Told:
    def __del__(self):
        print("deleted")
    def __call__(self, phase, info):
        pass

def work():
    gc.callbacks.append(Told())

# -- callback that raises: A callback of the collector's raises, once.
import gc

class Raising:
    calls = 0
    def __call__(self, phase, info):
        self.calls += 1
        if self.calls == 1:
            raise ValueError("told")

def work():
    gc.callbacks.append(Raising())
    gc.collect()

# -- garbage: An object with `__del__` is in `gc.garbage`.
import gc

class Told:
    def __del__(self):
        print("deleted")

def work():
    gc.garbage.append(Told())

# -- save all: All garbage is saved.
import gc

class Told:
    def __del__(self):
        print("deleted")

def work():
    gc.set_debug(gc.DEBUG_SAVEALL)
    told = Told()
    told.self = told

# -- thresholds: The thresholds are 0.
import gc

class Told:
    def __del__(self):
        print("deleted")

def work():
    gc.set_threshold(0)
    told = Told()
    told.self = told
    print(gc.get_threshold()[0])

# -- resource warning: A file is left open, and warnings are shown.
import warnings

def work():
    warnings.simplefilter("always")
    file = open("out", "w")
    file.write("told")

# -- resource warning at the end: A global file is open at the end, and warnings are shown.
import warnings

def work():
    global file
    warnings.simplefilter("always")
    file = open("out", "w")

# -- resource warning as error: A file is left open, and warnings are errors.
import warnings

def work():
    warnings.simplefilter("error")
    file = open("out", "w")
    file.write("told")

# -- socket: A socket is open at the end, and warnings are shown.
import socket, warnings

def work():
    warnings.simplefilter("always", ResourceWarning)
    made = socket.socket()
    made.detach()
    other = socket.socketpair()[0]

# -- sockets: Two sockets are connected, and one has bytes that are not yet read.
import socket

def work():
    global ends
    ends = socket.socketpair()
    ends[0].sendall(b"never read")

# -- socket file: A file that was made of a socket has a full buffer, and a program reads the socket.
import socket, subprocess

def work():
    global ends, file
    ends = socket.socketpair()
    subprocess.Popen(["cat"], stdin=ends[1], stdout=subprocess.DEVNULL).returncode = 0
    file = ends[0].makefile("w")
    file.write("told")

# -- unraisable: The hook for what can't be raised is the user's, and writes a file.
import sys

class Raising:
    def __del__(self):
        raise ValueError("told")

def work():
    def hook(unraisable, open=open):
        with open("out", "w") as file:
            file.write(str(unraisable.exc_value))
    sys.unraisablehook = hook
    told = Raising()
    told.self = told

# -- switch interval: The interval of switches is a second.
import sys

def work():
    sys.setswitchinterval(1)
    print(sys.getswitchinterval())

# -- recursion limit: The limit of recursion is low, and a `__del__` recurses.
import sys

class Told:
    def __del__(self):
        print("deleted")

def work():
    global told
    told = Told()
    sys.setrecursionlimit(120)

# -- address space: Memory is short at the end.
import resource

class Told:
    def __del__(self):
        print("deleted")

def work():
    global told
    told = Told()
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (4 << 20),) * 2)

# -- file size: Files may not grow, and SIGXFSZ is ignored. [raises]
import resource

def work():
    print("lost")
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
