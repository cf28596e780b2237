# -- kept: Text is in the buffer of stdout.
def work():
    print("told")

# -- without a newline: The last line has no end.
def work():
    print("told", end="")

# -- devnull: stdout is replaced by devnull after a line.
import os, sys

def work():
    print("told")
    sys.stdout = open(os.devnull, "w")
    print("lost")

# -- devnull both: stdout and stderr are replaced by devnull after a line each.
import os, sys

def work():
    print("told")
    print("told", file=sys.stderr, end="")
    sys.stdout = sys.stderr = open(os.devnull, "w")
    print("lost")

# -- StringIO: stdout is replaced by a StringIO after a line.
import io, sys

def work():
    print("told")
    sys.stdout = io.StringIO()
    print("lost")

# -- None: stdout is replaced by None after a line.
import sys

def work():
    print("told")
    sys.stdout = None
    print("lost")

# -- deleted: `sys.stdout` is deleted after a line.
import sys

def work():
    print("told")
    del sys.stdout

# -- an int: `sys.stdout` is no stream at all.
import sys

def work():
    print("told")
    sys.stdout = 1

# -- Tee: stdout is replaced by a tee that writes through to the old one.
import sys

class Tee:
    def __init__(self, *streams):
        self.streams = streams
    def write(self, text):
        for stream in self.streams:
            stream.write(text)
    def flush(self):
        pass

def work():
    print("told")
    sys.stdout = Tee(sys.stdout, open("log", "w"))
    print("told twice")

# -- Tee without flush: stdout is replaced by a tee that can't be flushed.
import sys

class Tee:
    def __init__(self, stream):
        self.stream = stream
    def write(self, text):
        self.stream.write(text)

def work():
    print("told")
    sys.stdout = Tee(sys.stdout)
    print("told again")

# -- flush does nothing: The replaced stdout has a buffer of its own, which nobody flushes.
import sys

class Lazy:
    def __init__(self, stream):
        self.stream, self.texts = stream, []
    def write(self, text):
        self.texts.append(text)
    def flush(self):
        pass
    def __del__(self):
        self.stream.write("".join(self.texts))

def work():
    print("told")
    sys.stdout = Lazy(sys.stdout)
    print("told late")

# -- flush raises: The flush of the replaced stdout raises.
import sys

class Raising:
    def write(self, text):
        pass
    def flush(self):
        raise ValueError("flush")

def work():
    print("told")
    sys.stdout = Raising()

# -- flush raises something else: The flush of the replaced stdout raises what multiprocessing lets through. [raises]
import sys

class Raising:
    def write(self, text):
        pass
    def flush(self):
        raise LookupError("flush")

def work():
    print("told")
    sys.stdout = Raising()

# -- flush raises later: The flush of the replaced stdout raises at the second call.
import sys

class Raising:
    calls = 0
    def write(self, text):
        pass
    def flush(self):
        self.calls += 1
        if self.calls > 1:
            raise LookupError("flush")

def work():
    print("told")
    sys.stdout = Raising()

# -- flush counts: How often the replaced stdout is flushed can be seen in a file.
import os, sys

class Counted:
    def write(self, text):
        pass
    def flush(self, write=os.write):
        write(1, b"flush\n")

def work():
    print("told", flush=True)
    sys.stdout = Counted()

# -- stderr: stdout is replaced by stderr after a line.
import sys

def work():
    print("told")
    sys.stdout = sys.stderr
    print("on stderr")

# -- exchanged: stdout and stderr are exchanged after a line.
import sys

def work():
    print("told")
    sys.stdout, sys.stderr = sys.stderr, sys.stdout
    print("told", file=sys.stderr)

# -- __stdout__ replaced: `sys.__stdout__` is replaced after a line.
import os, sys

def work():
    print("told")
    sys.__stdout__ = open(os.devnull, "w")

# -- both replaced: `sys.stdout` and `sys.__stdout__` are replaced after a line.
import os, sys

def work():
    print("told")
    sys.stdout = sys.__stdout__ = open(os.devnull, "w")

# -- __stdout__ deleted: `sys.__stdout__` is deleted, and stdout replaced.
import os, sys

def work():
    print("told")
    del sys.__stdout__
    sys.stdout = open(os.devnull, "w")

# -- both None: `sys.stdout` and `sys.__stdout__` are None after a line.
import sys

def work():
    print("told")
    sys.stdout = sys.__stdout__ = None

# -- kept elsewhere: The old stdout is held by a list of the rank's.
import io, sys

def work():
    global kept
    print("told")
    kept = [sys.stdout, sys.__stdout__]
    sys.stdout = sys.__stdout__ = io.StringIO()

# -- bytes: The buffer of stdout is written to.
import sys

def work():
    sys.stdout.buffer.write(b"told")

# -- bytes after text: Text and bytes are in both buffers of stdout.
import sys

def work():
    print("text")
    sys.stdout.flush()
    sys.stdout.buffer.write(b"bytes\n")
    print("text again")

# -- wrapper of the buffer: stdout is replaced by another wrapper of its buffer.
import io, sys

def work():
    print("told")
    sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-16")
    print("told again")

# -- detached: stdout is replaced by what was detached from it.
import io, sys

def work():
    print("told")
    sys.stdout = io.TextIOWrapper(sys.stdout.detach(), encoding="utf-8", line_buffering=False)
    print("told again")

# -- detached and dropped: The buffer of stdout was detached, and nothing is in its place.
import sys

def work():
    global buffer
    print("told")
    buffer = sys.stdout.detach()
    buffer.write(b"told again\n")

# -- writer of codecs: stdout is a `codecs` writer, as programs of Python 2 have it.
import codecs, sys

def work():
    print("told")
    sys.stdout = codecs.getwriter("utf-8")(sys.stdout.buffer)
    print("told again")

# -- raw: stdout is replaced by a writer on its raw layer.
import io, sys

def work():
    print("told")
    sys.stdout = io.TextIOWrapper(io.BufferedWriter(sys.stdout.buffer.raw))
    print("first, as it has a buffer of its own")

# -- reconfigured: stdout is reconfigured between two lines.
import sys

def work():
    print("told")
    sys.stdout.reconfigure(encoding="utf-16", errors="replace")
    print("told again")

# -- write through: stdout writes through from now on.
import sys

def work():
    print("told", end="")
    sys.stdout.reconfigure(write_through=True)
    print("told again", end="")

# -- new stream on fd 1: stdout is replaced by a new stream of the same fd.
import sys

def work():
    print("old")
    sys.stdout = open(1, "w", closefd=False)
    print("new")

# -- second stream on fd 1: A second stream of fd 1 has a full buffer.
def work():
    global second
    print("old")
    second = open(1, "w", closefd=False)
    second.write("new\n")

# -- stream that owns fd 1: stdout is replaced by a stream that closes fd 1.
import sys

def work():
    print("old")
    sys.stdout.flush()
    sys.stdout = open(1, "w")
    print("new")

# -- duplicate of fd 1: A stream on a duplicate of fd 1 is put in stdout's place.
import os, sys

def work():
    print("old")
    sys.stdout = os.fdopen(os.dup(1), "w")
    print("new")

# -- fd 1 redirected: fd 1 is another file between two lines.
import os

def work():
    print("told")
    os.dup2(os.open("out", os.O_CREAT | os.O_WRONLY), 1)
    print("told in out")

# -- stdin: A stream with a full buffer is assigned to `sys.stdin`.
import sys

def work():
    sys.stdin = open("out", "w")
    sys.stdin.write("told")

# -- __stdin__: A stream with a full buffer is assigned to `sys.__stdin__`.
import sys

def work():
    sys.__stdin__ = open("out", "w")
    sys.__stdin__.write("told")

# -- stdout to a file: A stream with a full buffer is assigned to `sys.stdout`.
import sys

def work():
    sys.stdout = open("out", "w")
    print("told")

# -- stderr to a file: A stream with a full buffer is assigned to `sys.stderr`.
import sys

def work():
    sys.stderr = open("out", "w")
    print("told", file=sys.stderr)

# -- __stdout__ to a file: A stream with a full buffer is assigned to `sys.__stdout__`.
import sys

def work():
    sys.__stdout__ = open("out", "w")
    print("told", file=sys.__stdout__)

# -- __stderr__ to a file: A stream with a full buffer is assigned to `sys.__stderr__`.
import sys

def work():
    sys.__stderr__ = open("out", "w")
    print("told", file=sys.__stderr__)

# -- close writes: The close of the replaced stdout writes.
import sys

class Closing:
    def __init__(self, stream):
        self.stream = stream
    def write(self, text):
        self.stream.write(text)
    def flush(self):
        self.stream.flush()
    def close(self):
        self.stream.write("closed\n")

def work():
    sys.stdout = Closing(sys.stdout)
    print("told")

# -- text stream whose close writes: The close of a stream of `io` writes a last line.
import io, os, sys

class Closing(io.TextIOWrapper):
    def close(self, write=os.write):
        write(1, b"closed\n")
        super().close()

def work():
    sys.stdout = Closing(open("out", "wb"))
    print("told")

# -- raw whose close writes: The raw layer of the replaced stdout writes when it is closed.
import io, os, sys

class Raw(io.FileIO):
    def close(self, write=os.write):
        write(1, b"closed\n")
        super().close()

def work():
    sys.stdout = io.TextIOWrapper(io.BufferedWriter(Raw("out", "w")))
    print("told")

# -- __del__ writes: The replaced stdout writes when it is deleted.
import os, sys

class Deleted:
    def write(self, text):
        pass
    def flush(self):
        pass
    def __del__(self, write=os.write):
        write(1, b"deleted\n")

def work():
    sys.stdout = Deleted()

# -- __del__ raises: The replaced stdout raises when it is deleted.
import sys

class Deleted:
    def write(self, text):
        pass
    def flush(self):
        pass
    def __del__(self):
        raise ValueError("deleted")

def work():
    print("told")
    sys.stdout = Deleted()

# -- redirected: stdout is redirected by a context manager that is never left.
import contextlib, io

def work():
    global manager, stack
    print("told")
    manager = contextlib.redirect_stdout(io.StringIO())
    manager.__enter__()
    print("lost")

# -- closed: stdout is closed.
import sys

def work():
    print("told")
    sys.stdout.close()

# -- buffer closed: The buffer of stdout is closed beneath it.
import sys

def work():
    print("told")
    sys.stdout.buffer.close()

# -- stderr closed: stderr is closed.
import sys

def work():
    print("told", file=sys.stderr)
    sys.stderr.close()
    print("told")

# -- fd 1 closed: fd 1 is closed while stdout has a full buffer. [raises]
import os

def work():
    print("lost")
    os.close(1)

# -- fd 1 closed with an empty buffer: fd 1 is closed, and stdout has nothing to say.
import os

def work():
    os.close(1)

# -- both fds closed: fds 1 and 2 are closed while stdout has a full buffer. [raises]
import os

def work():
    print("lost")
    os.close(1)
    os.close(2)

# -- disk full: stdout is a full disk. [raises]
import os

def work():
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
    print("lost")

# -- disk full in silence: stdout is replaced, and the old one is a full disk.
import io, os, sys

def work():
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
    print("lost")
    sys.stdout = io.StringIO()

# -- stderr on a full disk: stderr is a full disk.
import os, sys

def work():
    os.dup2(os.open("/dev/full", os.O_WRONLY), 2)
    sys.stderr = open(2, "w", closefd=False)
    sys.stderr.write("lost")
    print("told")

# -- broken pipe: stdout is a pipe that nobody reads. [raises]
import os

def work():
    reader, writer = os.pipe()
    os.dup2(writer, 1)
    os.close(reader)
    print("lost")

# -- broken pipe with its signal: stdout is a pipe that nobody reads, and SIGPIPE kills.
import os, signal

def work():
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    reader, writer = os.pipe()
    os.dup2(writer, 1)
    os.close(reader)
    print("lost")

# -- interactive: stderr has the beginning of a line.
import sys

def work():
    sys.stderr.write("no end of line")
    sys.stdout.write("no end of line")

# -- stderr with a buffer: stderr is replaced by a stream with a buffer.
import os, sys

def work():
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=4096)
    sys.stderr.write("told")

# -- stderr is None: A `__del__` raises while stderr is None.
import sys

class Raising:
    def __del__(self):
        raise ValueError("nobody hears it")

def work():
    global raising
    raising = Raising()
    sys.stderr = None
    print("told")

# -- displayhook: The display hook has printed a value.
import sys

def work():
    sys.displayhook(42)

# -- print in a thread: A thread that has ended has printed.
import threading

def work():
    thread = threading.Thread(target=print, args=("told",))
    thread.start()
    thread.join()

# -- large: One MiB was printed.
def work():
    print("x" * (1 << 20))

# -- subclass: `sys.stdout` has its class changed to one with `__del__`.
import io, sys

class Told(io.TextIOWrapper):
    def __del__(self):
        pass

def work():
    print("told")
    sys.stdout = Told(sys.stdout.detach())
    print("told again")
