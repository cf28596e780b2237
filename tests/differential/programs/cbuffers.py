# -- fopen: A FILE of libc is open with a full buffer.
import ctypes

def work():
    libc = ctypes.CDLL(None)
    libc.fopen.restype = ctypes.c_void_p
    libc.fputs(b"told", ctypes.c_void_p(libc.fopen(b"out", b"w")))

# -- printf: The stdout of libc has a full buffer.
import ctypes

def work():
    ctypes.CDLL(None).printf(b"told\n")

# -- printf and print: The stdout of libc and that of Python have full buffers.
import ctypes

def work():
    print("from Python")
    ctypes.CDLL(None).puts(b"from libc")

# -- exit function: A function of libc is registered with libc's `atexit`.
import ctypes

def work():
    libc = ctypes.CDLL(None)
    libc.printf(b"told\n")
    getattr(libc, "__cxa_atexit")(ctypes.cast(libc.puts, ctypes.c_void_p), ctypes.c_char_p(b"exit"), None)

# -- on_exit: A function of libc is registered with `on_exit`.
import ctypes

def work():
    libc = ctypes.CDLL(None)
    # Called with the exit code first: `dprintf(code, text)`.
    libc.on_exit(ctypes.cast(libc.dprintf, ctypes.c_void_p), ctypes.c_char_p(b"exit\n"))
    raise SystemExit(1)

# -- exit function by a bare pointer: A function of libc is registered, and nothing of ctypes lives.
import ctypes

def work():
    libc = ctypes.CDLL(None)
    address = ctypes.cast(libc.getpid, ctypes.c_void_p).value
    print(getattr(libc, "__cxa_atexit")(ctypes.c_void_p(address), None, None))

# -- exit function that ends: A function that is registered with libc changes the exit code.
import ctypes

def work():
    global text
    libc = ctypes.CDLL(None)
    getattr(libc, "__cxa_atexit")(ctypes.cast(libc._exit, ctypes.c_void_p), ctypes.c_void_p(42), None)

# -- callback: A callback of ctypes has a closure with `__del__`.
import ctypes

class Told:
    def __del__(self):
        print("deleted")

def work():
    global callback
    told = Told()
    callback = ctypes.CFUNCTYPE(ctypes.c_int)(lambda told=told: 42)
    print(callback())

# -- structure: A structure of ctypes has a `__del__`.
import ctypes

class Point(ctypes.Structure):
    _fields_ = [("x", ctypes.c_int)]
    def __del__(self):
        print("deleted", self.x)

def work():
    global point
    point = Point(42)

# -- array: An array of ctypes keeps an object with `__del__` alive.
import ctypes

class Told(bytes):
    def __del__(self):
        print("deleted")

def work():
    global pointer
    pointer = ctypes.c_char_p(Told(b"told"))

# -- py_object: Only memory of ctypes refers to an object with `__del__`.
import ctypes

class Told:
    def __del__(self):
        print("deleted")

def work():
    global holder
    holder = ctypes.py_object(Told())

# -- leaked: An object with `__del__` has one reference too many.
import ctypes

class Told:
    def __del__(self):
        print("never deleted")

def work():
    told = Told()
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(told))

# -- stderr of libc: The stderr of libc has no buffer.
import ctypes

def work():
    ctypes.CDLL(None).perror(b"told")

# -- stream of C without a flush: An exit code and a buffer of libc go together.
import ctypes

def work():
    ctypes.CDLL(None).printf(b"told\n")
    raise SystemExit(3)

# -- pending call: A pending call of the interpreter's is made.
import ctypes

def work():
    global function
    function = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(lambda _: print("called") or 0)
    ctypes.pythonapi.Py_AddPendingCall(function, None)

# -- AtExit of C: A C function is given to `Py_AtExit`.
import ctypes

def work():
    libc = ctypes.CDLL(None)
    print(ctypes.pythonapi.Py_AtExit(ctypes.cast(libc.getpid, ctypes.c_void_p)))

# -- AtExit that writes: What is given to `Py_AtExit` ends the process with a code of its own.
import ctypes

def work():
    # abort() takes no argument: the process dies by SIGABRT if it is called.
    ctypes.pythonapi.Py_AtExit(ctypes.cast(ctypes.CDLL(None).abort, ctypes.c_void_p))

# -- capsule: A capsule has a destructor in C.
import ctypes

def work():
    global capsule
    new = ctypes.pythonapi.PyCapsule_New
    new.restype = ctypes.py_object
    new.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    # Called with the capsule: the process dies by SIGABRT if it is.
    capsule = new(1, None, ctypes.cast(ctypes.CDLL(None).abort, ctypes.c_void_p))
