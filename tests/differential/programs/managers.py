# -- never left: A context manager was entered by hand.
class Manager:
    def __enter__(self):
        print("entered")
    def __exit__(self, *error):
        print("never left")

def work():
    global manager
    manager = Manager()
    manager.__enter__()

# -- of a generator: A context manager that is a generator was entered by hand.
import contextlib

@contextlib.contextmanager
def told():
    try:
        yield
    finally:
        print("left")

def work():
    global manager
    manager = told()
    manager.__enter__()

# -- ExitStack: An exit stack was never closed.
import contextlib

@contextlib.contextmanager
def told():
    try:
        yield
    finally:
        print("left")

def work():
    global stack
    stack = contextlib.ExitStack()
    stack.enter_context(told())
    stack.callback(print, "never called")

# -- ExitStack and atexit: An exit stack is closed at the exit.
import atexit, contextlib

def work():
    stack = contextlib.ExitStack()
    stack.callback(print, "first in")
    stack.callback(print, "last in")
    atexit.register(stack.close)

# -- closing: A `contextlib.closing` was never left.
import contextlib

def work():
    global manager
    manager = contextlib.closing(open("out", "w"))
    manager.__enter__().write("told")

# -- TemporaryDirectory: A temporary directory is not cleaned up.
import tempfile, warnings

def work():
    global folder
    warnings.simplefilter("ignore")
    folder = tempfile.TemporaryDirectory(dir=".")
    open(folder.name + "/file", "w").close()

# -- TemporaryDirectory that warns: A temporary directory is not cleaned up, and warnings are shown.
import tempfile, warnings

def work():
    global folder
    warnings.simplefilter("always")
    folder = tempfile.TemporaryDirectory(dir=".")

# -- TemporaryDirectory in a cycle: A temporary directory is in a cycle.
import tempfile

def work():
    ring = [tempfile.TemporaryDirectory(dir=".")]
    ring.append(ring)

# -- NamedTemporaryFile: A temporary file with a name is open.
import tempfile

def work():
    global file
    file = tempfile.NamedTemporaryFile(dir=".")
    file.write(b"gone")

# -- NamedTemporaryFile that stays: A temporary file that is not deleted has a full buffer.
import tempfile

def work():
    global file
    file = tempfile.NamedTemporaryFile("w", dir=".", delete=False)
    file.write("told")

# -- TemporaryFile: A temporary file without a name has a link.
import os, tempfile

def work():
    global file
    file = tempfile.TemporaryFile("w", dir=".")
    file.write("told")
    try:
        os.link(f"/proc/self/fd/{file.fileno()}", "out", follow_symlinks=True)
    except OSError:
        print("no link")

# -- SpooledTemporaryFile: A spooled file was rolled over.
import tempfile

def work():
    global file
    file = tempfile.SpooledTemporaryFile(max_size=1, dir=".")
    file.write(b"gone")

# -- lock file: A lock file is removed by `__del__`.
import os

class Lock:
    def __init__(self):
        open("lock", "x").close()
    def __del__(self):
        os.unlink("lock")

def work():
    global lock
    lock = Lock()

# -- folder changed: `__del__` of a manager goes back to the folder where it came from.
import os

class Folder:
    def __enter__(self):
        self.before = os.getcwd()
        os.mkdir("below")
        os.chdir("below")
    def __exit__(self, *error):
        os.chdir(self.before)
    def __del__(self):
        self.__exit__()
        open("back", "w").close()

def work():
    global folder
    folder = Folder()
    folder.__enter__()

# -- suppress: A SystemExit goes through nested managers. [raises]
import contextlib, sys

@contextlib.contextmanager
def told(name):
    try:
        yield
    finally:
        print(name)

def work():
    with told("outer"), told("inner"):
        sys.exit(3)

# -- decimal: The context of decimal was changed.
import decimal

def work():
    decimal.getcontext().prec = 3
    print(decimal.Decimal(1) / 3)

# -- profile: A profile was never disabled.
import cProfile

def work():
    global profile
    profile = cProfile.Profile()
    profile.enable()

# -- tracemalloc: The tracing of memory was started.
import tracemalloc

def work():
    tracemalloc.start()
    print(tracemalloc.is_tracing())
