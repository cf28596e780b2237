# -- atexit: A function is registered.
import atexit

def work():
    atexit.register(print, "told")

# -- atexit in order: Functions are called in reverse order.
import atexit

def work():
    for n in range(3):
        atexit.register(print, n)

# -- atexit by decorator: A function is registered as a decorated one.
import atexit

@atexit.register
def told():
    print("told")

def work():
    print("working")

# -- atexit within atexit: A registered function registers another one.
import atexit

def first():
    print("first")
    atexit.register(print, "second")

def work():
    atexit.register(first)

# -- atexit raises: A registered function raises.
import atexit

def work():
    atexit.register(print, "told")
    atexit.register(int, "no number")

# -- atexit exits: A registered function calls `sys.exit`.
import atexit, sys

def work():
    atexit.register(print, "told")
    atexit.register(sys.exit, 3)

# -- atexit leaves: A registered function leaves by `os._exit`.
import atexit, os

def work():
    print("lost")
    atexit.register(os._exit, 3)

# -- atexit unregister: A registered function is unregistered.
import atexit

def work():
    atexit.register(print, "never told")
    atexit.unregister(print)

# -- atexit with a bound method: A registered method keeps its object alive.
import atexit

class Told:
    def told(self):
        print("told")
    def __del__(self):
        print("deleted")

def work():
    atexit.register(Told().told)

# -- atexit and threads: A registered function finds that the threads have ended.
import atexit, threading

def late(event):
    event.wait()
    print("thread")

def work():
    event = threading.Event()
    threading.Thread(target=late, args=(event,)).start()
    atexit.register(lambda: print(threading.active_count()))
    event.set()

# -- atexit asks whether it ends: A registered function asks `sys.is_finalizing`.
import atexit, sys

def work():
    atexit.register(lambda: print(sys.is_finalizing()))

# -- atexit closes stdout: A registered function closes stdout.
import atexit, sys

def work():
    print("told")
    atexit.register(lambda: sys.stdout.close())

# -- atexit with __del__: A registered function's argument has a `__del__`.
import atexit

class Told:
    def __del__(self):
        print("deleted")

def work():
    atexit.register(len, [Told()])

# -- atexit that is called by hand: The registered functions are called by hand.
import atexit

def work():
    atexit.register(print, "told")
    atexit._run_exitfuncs()
    print("called")

# -- atexit count: A registered function asks how many are left.
import atexit

def work():
    atexit.register(lambda: print(atexit._ncallbacks() > 0))

# -- atexit after raising: A function is registered, and the rank raises. [raises]
import atexit

def work():
    atexit.register(print, "told")
    raise ValueError("told")

# -- return: The function returns a value that nobody asks for.
def work():
    return 3

# -- exit 0: `sys.exit(0)`.
import sys

def work():
    print("told")
    sys.exit(0)

# -- exit 3: `sys.exit(3)`.
import sys

def work():
    print("told")
    sys.exit(3)

# -- exit None: `sys.exit(None)`.
import sys

def work():
    sys.exit(None)

# -- exit without an argument: `sys.exit()`.
import sys

def work():
    sys.exit()

# -- exit text: `sys.exit` is given a text.
import sys

def work():
    sys.exit("text")

# -- exit list: `sys.exit` is given a list.
import sys

def work():
    sys.exit([1, 2])

# -- exit 2.5: `sys.exit(2.5)`.
import sys

def work():
    sys.exit(2.5)

# -- exit True: `sys.exit(True)`.
import sys

def work():
    sys.exit(True)

# -- exit tuple: `sys.exit` is given a tuple.
import sys

def work():
    sys.exit((3, 4))

# -- exit 256: `sys.exit(256)`.
import sys

def work():
    sys.exit(256)

# -- exit 257: `sys.exit(257)`.
import sys

def work():
    sys.exit(257)

# -- exit -1: `sys.exit(-1)`.
import sys

def work():
    sys.exit(-1)

# -- exit -15: `sys.exit(-15)`.
import sys

def work():
    sys.exit(-15)

# -- exit 2**31: `sys.exit(2**31)`.
import sys

def work():
    sys.exit(2**31)

# -- exit -2**31: `sys.exit(-2**31)`.
import sys

def work():
    sys.exit(-(2**31))

# -- exit 2**32+3: `sys.exit(2**32 + 3)`.
import sys

def work():
    sys.exit(2**32 + 3)

# -- exit 2**40: `sys.exit(2**40)`.
import sys

def work():
    print("told")
    sys.exit(2**40)

# -- exit 2**100: `sys.exit(2**100)`.
import sys

def work():
    sys.exit(2**100)

# -- exit int subclass: `sys.exit` is given an int with a `__del__`.
import sys

class Code(int):
    def __del__(self):
        print("deleted")

def work():
    sys.exit(Code(3))

# -- SystemExit subclass: A subclass of SystemExit is raised.
class Exit(SystemExit):
    pass

def work():
    raise Exit(4)

# -- SystemExit subclass with __del__: A subclass of SystemExit has a `__del__`.
class Exit(SystemExit):
    def __del__(self):
        print("deleted")

def work():
    raise Exit(4)

# -- SystemExit without code: A SystemExit's code was deleted.
def work():
    error = SystemExit(3)
    error.code = 5
    raise error

# -- quit: `quit` of the module site is called.
def work():
    print("told")
    quit(6)

# -- os._exit: `os._exit` loses what is in the buffers.
import os

def work():
    print("lost")
    os._exit(5)

# -- os._exit after flush: `os._exit` comes after a flush.
import os

def work():
    print("told", flush=True)
    os._exit(0)

# -- exit in a finally: `os._exit` in a finally hides an exception.
import os

def work():
    try:
        raise ValueError
    finally:
        os._exit(7)

# -- raises: The function raises. [raises]
def work():
    print("told")
    raise ValueError("told")

# -- raises with a file: The function raises while a file in its frame has a full buffer. [raises]
def work():
    file = open("out", "w")
    file.write("told")
    raise ValueError("told")

# -- raises with a generator: The function raises while a global generator is suspended. [raises]
def told():
    try:
        yield
    finally:
        print("told")

def work():
    global running
    running = told()
    next(running)
    raise ValueError("told")

# -- raises with __del__: The exception that is raised has a `__del__`. [raises]
class Told(Exception):
    def __del__(self):
        print("deleted")

def work():
    raise Told

# -- raises BaseException: The function raises what is no Exception. [raises]
class Told(BaseException):
    pass

def work():
    print("told")
    raise Told

# -- raises GeneratorExit: The function raises GeneratorExit. [raises]
def work():
    raise GeneratorExit

# -- KeyboardInterrupt: The function raises KeyboardInterrupt. [raises]
def work():
    print("told")
    raise KeyboardInterrupt

# -- MemoryError: The function raises MemoryError. [raises]
def work():
    raise MemoryError

# -- recursion: The function calls itself without an end. [raises]
def work():
    work()

# -- raises in except: The function raises while it handles another exception. [raises]
def work():
    try:
        raise ValueError("first")
    except ValueError:
        raise LookupError("second")

# -- raises a group: The function raises after it was told to, and prints its traceback. [raises]
import traceback

def work():
    try:
        raise ValueError("told")
    except ValueError:
        traceback.print_exc(limit=0, file=open("out", "w"))
        raise

# -- SIGTERM: SIGTERM ends the rank.
import os, signal

def work():
    print("lost")
    os.kill(os.getpid(), signal.SIGTERM)
    signal.pause()

# -- SIGTERM handled: A handler of SIGTERM exits.
import os, signal, sys

def work():
    print("told")
    signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(9))
    os.kill(os.getpid(), signal.SIGTERM)
    signal.pause()

# -- SIGTERM at exit: SIGTERM comes while functions of atexit are called.
import atexit, os, signal

def work():
    atexit.register(print, "never told")
    atexit.register(lambda: (os.kill(os.getpid(), signal.SIGTERM), signal.pause()))

# -- SIGKILL: SIGKILL ends the rank.
import os, signal

def work():
    print("lost")
    os.kill(os.getpid(), signal.SIGKILL)

# -- SIGUSR1: A signal that is not handled ends the rank.
import os, signal

def work():
    os.kill(os.getpid(), signal.SIGUSR1)
    signal.pause()

# -- SIGALRM: An alarm ends the rank.
import signal

def work():
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    signal.pause()

# -- SIGSEGV: A read of address 0 ends the rank. [raises]
import ctypes, resource

def work():
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.string_at(0)

# -- abort: `os.abort` ends the rank. [raises]
import os, resource

def work():
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    print("lost")
    os.abort()

# -- abort with faulthandler: faulthandler tells of an abort in a file of the user's.
import faulthandler, os, resource

def work():
    global file
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    file = open("out", "w")
    faulthandler.enable(file, all_threads=False)
    os.abort()

# -- faulthandler later: faulthandler is asked for a dump that is cancelled.
import faulthandler

def work():
    global file
    file = open("out", "w")
    faulthandler.dump_traceback_later(60, file=file)
    faulthandler.cancel_dump_traceback_later()
    print("told")

# -- faulthandler pending: faulthandler is asked for a dump that never comes.
import faulthandler

def work():
    global file
    file = open("out", "w")
    faulthandler.dump_traceback_later(60, file=file)
    print("told")

# -- execv: The rank becomes another program.
import os

def work():
    print("lost")
    os.execv("/bin/sh", ["sh", "-c", "echo told; exit 3"])

# -- execv with a file: The rank becomes another program while a file has a full buffer.
import os

def work():
    global file
    file = open("out", "w")
    file.write("lost")
    os.execv("/bin/true", ["true"])

# -- bare function: The function does nothing at all.
def work():
    pass
