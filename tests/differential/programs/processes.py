# -- child runs on: A program that the rank has started runs on.
import subprocess, warnings

def work():
    global process
    warnings.simplefilter("ignore")
    process = subprocess.Popen(["sleep", "0.5"])
    print("told")

# -- child runs on with a warning: A program runs on, and warnings are shown.
import subprocess, warnings

def work():
    warnings.simplefilter("always", ResourceWarning)
    process = subprocess.Popen(["sleep", "0.5"])

# -- cat: A program reads from a pipe that ends with the rank.
import os, subprocess

def work():
    global process
    process = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    process.stdin.write(b"told")
    print("told")

# -- pipe with a buffer: A pipe to a program has a full buffer, and the program writes what it reads.
import subprocess, threading

def work():
    global process, writer
    process = subprocess.Popen("cat > out; echo > done", shell=True, stdin=subprocess.PIPE, text=True)
    process.stdin.write("told")
    process.stdin.close()
    process.wait()

# -- os.popen: A pipe of `os.popen` is open.
import os

def work():
    global pipe
    pipe = os.popen("echo told")
    print(pipe.readline())

# -- os.popen to write: A pipe of `os.popen` has a full buffer.
import os

def work():
    global pipe
    pipe = os.popen("cat > out", "w")
    pipe.write("told")

# -- zombie: A program has ended, and nobody asks for its exit code.
import os, subprocess

def work():
    global process
    process = subprocess.Popen(["true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)

# -- os.system: A program prints between two lines.
import os

def work():
    print("before", flush=True)
    os.system("echo between")
    print("after")

# -- fork, exits at once: A forked child leaves by `os._exit`.
import os

def work():
    print("told")
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    print(os.waitpid(pid, 0)[1])

# -- fork, returns: A forked child returns from the function.
import os

def work():
    pid = os.fork()
    if pid == 0:
        print("child")
        return
    print(os.waitpid(pid, 0)[1])

# -- fork, exits: A forked child calls `sys.exit`.
import os, sys

def work():
    pid = os.fork()
    if pid == 0:
        print("child")
        sys.exit(3)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

# -- fork with a full buffer: A forked child writes what was in the buffer once more.
import os

def work():
    print("twice")
    pid = os.fork()
    if pid == 0:
        return
    os.waitpid(pid, 0)

# -- fork with a file: A forked child writes the buffer of a file once more.
import os

def work():
    global file
    file = open("out", "a")
    file.write("twice\n")
    pid = os.fork()
    if pid == 0:
        return
    os.waitpid(pid, 0)

# -- fork with __del__: A forked child deletes its objects, too.
import os

class Told:
    def __del__(self):
        print("deleted")

def work():
    global told
    told = Told()
    pid = os.fork()
    if pid == 0:
        return
    os.waitpid(pid, 0)

# -- fork with a generator: A forked child closes its generator, too.
import os

def told():
    try:
        yield
    finally:
        print("told")

def work():
    global running
    running = told()
    next(running)
    pid = os.fork()
    if pid == 0:
        return
    os.waitpid(pid, 0)

# -- fork with atexit: A forked child calls what is registered, too.
import atexit, os

def work():
    atexit.register(print, "exit")
    pid = os.fork()
    if pid == 0:
        return
    os.waitpid(pid, 0)

# -- fork with a C buffer: A forked child flushes the buffers of libc, too.
import ctypes, os

def work():
    ctypes.CDLL(None).printf(b"twice\n")
    pid = os.fork()
    if pid == 0:
        return
    os.waitpid(pid, 0)

# -- fork in a fork: A forked child forks.
import os

def work():
    for name in ("child", "grandchild"):
        pid = os.fork()
        if pid:
            print(name, os.waitpid(pid, 0)[1])
            return
    print("last")

# -- fork by multiprocessing: A process that is started by fork ends before the rank.
import multiprocessing

class Told:
    def __del__(self):
        print("deleted")

def work():
    global told
    told = Told()
    process = multiprocessing.get_context("fork").Process(target=print, args=("child",))
    process.start()
    process.join()
    print(process.exitcode)

# -- after fork: A function is called in a forked child.
import os

def work():
    os.register_at_fork(after_in_child=lambda: print("in the child"))
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)

# -- pty: A program runs at a terminal of the rank's.
import os, pty

def work():
    pid, master = pty.fork()
    if pid == 0:
        os.execv("/bin/echo", ["echo", "told"])
    print(os.read(master, 100))
    os.waitpid(pid, 0)

# -- spawned process: A process that is started by spawn ends before the rank.
import multiprocessing

def work():
    process = multiprocessing.get_context("spawn").Process(target=print, args=("child",))
    process.start()
    process.join()
    print(process.exitcode)
