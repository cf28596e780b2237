# -- text: A text file is left open with a full buffer.
def work():
    global file
    file = open("out", "w")
    file.write("told")

# -- text in a local: A text file is a local variable when the function returns.
def work():
    file = open("out", "w")
    file.write("told")

# -- text in a cycle: A text file is reachable from a cycle only.
def work():
    ring = []
    ring.append(ring)
    ring.append(open("out", "w"))
    ring[1].write("told")

# -- binary: A binary file is left open with a full buffer.
def work():
    global file
    file = open("out", "wb")
    file.write(b"told")

# -- unbuffered: An unbuffered file is left open.
def work():
    global file
    file = open("out", "wb", buffering=0)
    file.write(b"told")

# -- read and write: A file that is open for both directions has a full buffer.
def work():
    global file
    file = open("out", "w+b")
    file.write(b"0123456789")
    file.seek(2)
    file.read(1)
    file.write(b"x")

# -- big buffer: A buffer of 1 MiB is full to the last byte but one.
def work():
    global file
    file = open("out", "wb", buffering=1 << 20)
    file.write(bytes((1 << 20) - 1))

# -- by hand: The layers of a text file were put together by hand.
import io

def work():
    global text
    text = io.TextIOWrapper(io.BufferedWriter(io.FileIO("out", "w")), encoding="utf-8")
    text.write("told")

# -- encoder with a state: An encoder owes its last bytes to a file.
def work():
    global file
    file = open("out", "w", encoding="utf-7")
    file.write("told \u20ac")

# -- fdopen: A file object was made of a fd.
import os

def work():
    global file
    file = os.fdopen(os.open("out", os.O_CREAT | os.O_WRONLY), "w")
    file.write("told")

# -- closefd: A file object does not own its fd.
import os

def work():
    global file
    file = open(os.open("out", os.O_CREAT | os.O_WRONLY), "w", closefd=False)
    file.write("told")

# -- pair: One text file is layered on another one's buffer.
import io

def work():
    global first, second
    first = open("out", "w")
    first.write("first ")
    second = io.TextIOWrapper(first.buffer)
    second.write("second")

# -- rw pair: A pair of a reader and a writer on a pipe has a full buffer.
import io, os

def work():
    global pair
    reader = open("in", "w+b", buffering=0)
    pair = io.BufferedRWPair(reader, open("out", "wb", buffering=0))
    pair.write(b"told")

# -- codecs: A stream of `codecs` is left open.
import codecs

def work():
    global file
    file = codecs.open("out", "w", "utf-16")
    file.write("told")

# -- csv: A writer of csv holds the file that is open.
import csv

def work():
    global writer
    writer = csv.writer(open("out", "w", newline=""))
    writer.writerow([1, "two", 3.0])

# -- pickler: A pickler holds the file that is open.
import pickle

def work():
    global pickler
    pickler = pickle.Pickler(open("out", "wb"))
    pickler.dump(["told"])

# -- bound method: Only the bound method `write` of a file is kept.
def work():
    global write
    write = open("out", "w").write
    write("told")

# -- iterator: Only an iterator that writes into a file is kept.
def work():
    global lines
    lines = map(open("out", "w").write, ["told", " twice"])
    next(lines)

# -- gzip: A gzip file lacks its trailer.
import gzip

def work():
    global file
    file = gzip.GzipFile("out", "wb", mtime=0)
    file.write(b"told")

# -- gzip text: A gzip file is written as text.
import gzip, io

def work():
    global file
    file = io.TextIOWrapper(gzip.GzipFile("out", "wb", mtime=0))
    file.write("told")

# -- bz2: A bz2 file has all in its compressor.
import bz2

def work():
    global file
    file = bz2.open("out", "wb")
    file.write(b"told")

# -- lzma: An lzma file has all in its compressor.
import lzma

def work():
    global file
    file = lzma.open("out", "wb")
    file.write(b"told")

# -- zip: A zip file lacks its directory.
import zipfile

def work():
    global file
    file = zipfile.ZipFile("out.zip", "w")
    file.writestr(zipfile.ZipInfo("member"), "told")

# -- zip member: A member of a zip file is open for writing.
import zipfile

def work():
    global file, member
    file = zipfile.ZipFile("out.zip", "w")
    member = file.open(zipfile.ZipInfo("member"), "w")
    member.write(b"told")

# -- tar: A tar file lacks its end.
import io, tarfile

def work():
    global file
    file = tarfile.open("out.tar", "w")
    info = tarfile.TarInfo("member")
    info.size = 4
    file.addfile(info, io.BytesIO(b"told"))

# -- shelve: A shelf with write-back is not synchronised.
import shelve

def work():
    global shelf
    from dbm import dumb
    shelf = shelve.Shelf(dumb.open("shelf"), writeback=True)
    shelf["key"] = []
    shelf["key"].append("told")

# -- dbm dumb: A database of `dbm.dumb` has not written its directory.
def work():
    global base
    from dbm import dumb
    base = dumb.open("base")
    base[b"key"] = b"told"

# -- sqlite committed: A connection to a database is open after a commit.
import sqlite3

def work():
    global base
    base = sqlite3.connect("base")
    base.execute("create table t (x)")
    base.execute("insert into t values (1)")
    base.commit()
    print(base.execute("select count(*) from t").fetchone())

# -- sqlite in a transaction: A connection is open in the middle of a transaction.
import os, sqlite3

def work():
    global base
    base = sqlite3.connect("base")
    base.execute("create table t (x)")
    base.commit()
    base.execute("insert into t values (1)")
    print(sorted(os.listdir(".")))

# -- sqlite with a log: The write-ahead log is folded into the database when it is closed.
import sqlite3

def work():
    global base
    base = sqlite3.connect("base", isolation_level=None)
    base.execute("pragma journal_mode=wal")
    base.execute("create table t (x)")

# -- mmap: A mapped file was written to, and is not closed.
import mmap

def work():
    global memory
    with open("out", "w+b") as file:
        file.truncate(4096)
        memory = mmap.mmap(file.fileno(), 4096)
    memory[:4] = b"told"

# -- sharing a buffer: A view of a file's buffer is alive.
import io

def work():
    global view, file
    file = open("out", "wb")
    file.write(memoryview(b"told"))
    view = io.BytesIO(b"x").getbuffer()

# -- deleted: The file that is open has been deleted, and is there by another name.
import os

def work():
    global file
    file = open("out", "w")
    file.write("told")
    os.link("out", "other")
    os.unlink("out")

# -- many: Three hundred files are open, each with a full buffer.
def work():
    global files
    files = [open(f"out{n}", "w") for n in range(300)]
    for n, file in enumerate(files):
        file.write(str(n))

# -- descriptor gone: The fd of an open file was closed behind its back.
import os

def work():
    global file
    file = open("out", "w")
    file.write("lost")
    os.close(file.fileno())

# -- disk full: An open file can't be written, as the disk is full.
def work():
    global file
    file = open("/dev/full", "w")
    file.write("lost")

# -- fifo without a reader: An open file is a pipe that nobody reads any more.
import os

def work():
    global file
    reader, writer = os.pipe()
    file = open(writer, "w")
    file.write("lost")
    os.close(reader)

# -- subclass of FileIO: A file's class counts its closes.
import io

class Counted(io.FileIO):
    def close(self):
        print("closed", self.closed)
        super().close()

def work():
    global file
    file = Counted("out", "w")

# -- subclass of BytesIO: A file in memory saves itself when it is closed.
import io

class Saved(io.BytesIO):
    def close(self, open=open):
        if not self.closed:
            with open("out", "wb") as file:
                file.write(self.getvalue())
        super().close()

def work():
    global file
    file = Saved()
    file.write(b"told")

# -- subclass of StringIO: A file in memory saves itself when it is closed, as text.
import io

class Saved(io.StringIO):
    def close(self, open=open):
        if not self.closed:
            with open("out", "w") as file:
                file.write(self.getvalue())
        super().close()

def work():
    global file
    file = Saved()
    file.write("told")

# -- closed, with __del__: A closed file's class has a `__del__`.
import io

class Told(io.FileIO):
    def __del__(self):
        print("deleted")

def work():
    global file
    file = Told("out", "w")
    file.close()

# -- wrapper of a closed file: A closed text file's class has a `__del__`.
import io

class Told(io.TextIOWrapper):
    def __del__(self):
        print("deleted")

def work():
    global file
    file = Told(open("out", "wb"))
    file.close()

# -- attribute of a closed file: A closed file has an attribute with a `__del__`.
class Told:
    def __del__(self):
        print("deleted")

def work():
    global file
    file = open("out", "w")
    file.told = Told()
    file.close()

# -- raw python file: A class of `io.RawIOBase` writes what it is given into a list, and that into a file.
import io

class Raw(io.RawIOBase):
    def writable(self):
        return True
    def write(self, data, open=open):
        with open("out", "ab") as file:
            return file.write(data)

def work():
    global file
    file = io.BufferedWriter(Raw())
    file.write(b"told")

# -- fileinput: A file is being edited in place.
import fileinput

def work():
    global lines
    with open("out", "w") as file:
        file.write("one\ntwo\n")
    lines = fileinput.input("out", inplace=True)
    next(lines)
    print("changed")

# -- directory: A directory is being read.
import os

def work():
    global entries
    open("one", "w").close()
    entries = os.scandir(".")
    next(entries)
