# -- array: A global array of numpy's. [numpy]
import numpy

def work():
    global array
    array = numpy.arange(1000).reshape(10, 100)
    print(array.sum())

# -- memmap: A mapped array is not flushed. [numpy]
import numpy

def work():
    global array
    array = numpy.memmap("out", dtype="u1", mode="w+", shape=(4096,))
    array[:4] = [116, 111, 108, 100]

# -- subclass: A subclass of an array has a `__del__`. [numpy]
import numpy

class Told(numpy.ndarray):
    def __del__(self):
        print("deleted")

def work():
    global array
    array = numpy.zeros(3).view(Told)

# -- array of objects: An array of objects holds one with `__del__`. [numpy]
import numpy

class Told:
    def __del__(self):
        print("deleted")

def work():
    global array
    array = numpy.array([Told(), None], dtype=object)

# -- base: An array's memory is owned by an object with `__del__`. [numpy]
import numpy

class Told(bytearray):
    def __del__(self):
        print("deleted")

def work():
    global array
    array = numpy.frombuffer(Told(b"told"), dtype="u1")

# -- on the module: An object with `__del__` is an attribute of numpy's. [numpy]
import numpy

class Told:
    def __del__(self):
        print("deleted")

def work():
    numpy.told = Told()

# -- file on the module: A file with a full buffer is an attribute of numpy's. [numpy]
import numpy

def work():
    numpy.log = open("out", "w")
    numpy.log.write("told")

# -- error call: The handler of numpy's errors has a `__del__`. [numpy]
import numpy

class Told:
    def __del__(self):
        print("deleted")
    def write(self, text):
        print(text, end="")

def work():
    numpy.seterrcall(Told())
    numpy.seterr(all="log")
    numpy.array([1.0]) / 0

# -- npz: An archive of numpy's is being read. [numpy]
import numpy

def work():
    global archive
    numpy.savez("out.npz", array=numpy.zeros(3))
    archive = numpy.load("out.npz")
    print(archive.files)
    __import__("os").unlink("out.npz")

# -- tofile: An array was written into a file that is open. [numpy]
import numpy

def work():
    global file
    file = open("out", "wb")
    file.write(b"head")
    numpy.arange(3, dtype="u1").tofile(file)

# -- capsule: An array owns memory by a capsule. [numpy]
import numpy

def work():
    global array
    array = numpy.from_dlpack(numpy.arange(3))
    print(array.sum())
