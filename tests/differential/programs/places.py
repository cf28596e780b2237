# -- builtins: An object with `__del__` is in `builtins`.
import builtins

class Told:
    def __del__(self):
        print("deleted")

def work():
    builtins.told = Told()

# -- builtins replaced: `print` of `builtins` is replaced by an object with `__del__`.
import builtins

class Told:
    def __init__(self, function):
        self.function = function
    def __call__(self, *values):
        self.function(*values)
    def __del__(self):
        self.function("deleted")

def work():
    builtins.print = Told(print)
    builtins.print("called")

# -- builtins with a file: A file with a full buffer is in `builtins`.
import builtins

def work():
    builtins.log = open("out", "w")
    builtins.log.write("told")

# -- sys: An object with `__del__` is an attribute of `sys`.
import sys

class Told:
    def __del__(self):
        print("deleted")

def work():
    sys.told = Told()

# -- sys with a file: A file with a full buffer is an attribute of `sys`.
import sys

def work():
    sys.log = open("out", "w")
    sys.log.write("told")

# -- module of the library: An object with `__del__` is an attribute of `os`.
import os

class Told:
    def __del__(self):
        print("deleted")

def work():
    os.told = Told()

# -- file on a module: A file with a full buffer is an attribute of `os`.
import os

def work():
    os.log = open("out", "w")
    os.log.write("told")

# -- generator on a module: A suspended generator is an attribute of `os`.
import os

def told():
    try:
        yield
    finally:
        print("told")

def work():
    os.running = told()
    next(os.running)

# -- generator on builtins: A suspended generator is in `builtins`.
import builtins

def told():
    try:
        yield
    finally:
        print("told")

def work():
    builtins.running = told()
    next(builtins.running)

# -- generator on sys: A suspended generator is an attribute of `sys`.
import sys

def told():
    try:
        yield
    finally:
        print("told")

def work():
    sys.running = told()
    next(sys.running)

# -- class of the library: An object with `__del__` is an attribute of a class of the library.
import threading

class Told:
    def __del__(self):
        print("deleted")

def work():
    threading.Thread.told = Told()

# -- file on a class: A file with a full buffer is an attribute of a class of the library.
import threading

def work():
    threading.Thread.log = open("out", "w")
    threading.Thread.log.write("told")

# -- method of a class: A method of a class of the library is replaced by an object with `__del__`.
import threading

class Told:
    def __del__(self):
        print("deleted")
    def __call__(self):
        pass

def work():
    threading.Thread.run = Told()

# -- function of the library: An object with `__del__` is an attribute of a function of the library.
import os

class Told:
    def __del__(self):
        print("deleted")

def work():
    os.path.join.told = Told()

# -- default of a function: An object with `__del__` is a default of a function of the library.
import os

class Told:
    def __del__(self):
        print("deleted")

def work():
    os.path.join.__kwdefaults__ = {"told": Told()}

# -- environment: A class of the library's object is replaced by one with `__del__`.
import os

class Environment(type(os.environ)):
    def __del__(self):
        print("deleted")

def work():
    os.environ.__class__ = Environment

# -- list of the library: An object with `__del__` is in `sys.path_hooks`.
import sys

class Told:
    def __del__(self):
        print("deleted")
    def __call__(self, path):
        raise ImportError

def work():
    sys.path_hooks.append(Told())

# -- finder: A finder with `__del__` is in `sys.meta_path`.
import sys

class Told:
    def __del__(self):
        print("deleted")
    def find_spec(self, *arguments):
        return None

def work():
    sys.meta_path.append(Told())

# -- excepthook: The hook of `sys` has a `__del__`.
import sys

class Told:
    def __del__(self):
        print("deleted")
    def __call__(self, *error):
        print("hook")

def work():
    sys.excepthook = Told()

# -- threading.excepthook: The hook of `threading` has a `__del__`.
import threading

class Told:
    def __del__(self):
        print("deleted")
    def __call__(self, arguments):
        print("hook")

def work():
    threading.excepthook = Told()

# -- unraisablehook: The hook for what can't be raised hears of a `__del__`.
import sys

class Raising:
    def __del__(self):
        raise ValueError("told")

def work():
    global raising
    sys.unraisablehook = lambda unraisable, print=print: print("hook", unraisable.exc_value)
    raising = Raising()

# -- displayhook: The hook that displays has a `__del__`.
import sys

class Told:
    def __del__(self):
        print("deleted")

def work():
    sys.displayhook = Told()

# -- breakpointhook: The hook of `breakpoint` has a generator in its closure.
import sys

def told():
    try:
        yield
    finally:
        print("told")

def work():
    running = told()
    next(running)
    sys.breakpointhook = lambda: running

# -- signal handler: The handler of a signal has a `__del__`.
import signal

class Told:
    def __del__(self):
        print("deleted")
    def __call__(self, signum, frame):
        pass

def work():
    signal.signal(signal.SIGUSR1, Told())

# -- signal handler with a file: The handler of a signal has a file with a full buffer.
import signal

def work():
    file = open("out", "w")
    file.write("told")
    signal.signal(signal.SIGUSR1, lambda signum, frame: file)

# -- warnings filter: An object with `__del__` is in the filters of warnings.
import re, warnings

class Told:
    def __del__(self):
        print("deleted")
    def match(self, text):
        return None

def work():
    warnings.filters.insert(0, ("ignore", Told(), Warning, None, 0))

# -- showwarning: The function that shows warnings has a `__del__`.
import warnings

class Told:
    def __del__(self):
        print("deleted")
    def __call__(self, *arguments):
        print("warning")

def work():
    warnings.showwarning = Told()
    warnings.warn("told")

# -- context variable: An object with `__del__` is in a context variable.
import contextvars

class Told:
    def __del__(self):
        print("deleted")

variable = contextvars.ContextVar("variable")

def work():
    variable.set(Told())

# -- context: An object with `__del__` is in a kept context.
import contextvars

class Told:
    def __del__(self):
        print("deleted")

variable = contextvars.ContextVar("variable")

def work():
    global context
    context = contextvars.copy_context()
    context.run(variable.set, Told())

# -- copyreg: A function of copyreg's table has a `__del__`.
import copyreg

class Told:
    def __del__(self):
        print("deleted")
    def __call__(self, value):
        return int, (0,)

def work():
    copyreg.pickle(complex, Told())

# -- codec: A search function of codecs has a `__del__`.
import codecs

class Told:
    def __del__(self):
        print("deleted")
    def __call__(self, name):
        return None

def work():
    codecs.register(Told())

# -- error handler: An error handler of codecs has a `__del__`.
import codecs

class Told:
    def __del__(self):
        print("deleted")
    def __call__(self, error):
        return "?", error.end

def work():
    codecs.register_error("told", Told())

# -- audit hook: An audit hook hears of nothing any more.
import sys

class Told:
    def __del__(self):
        print("deleted")
    def __call__(self, event, arguments):
        pass

def work():
    sys.addaudithook(Told())

# -- audit hook that prints: An audit hook hears how the interpreter ends.
import sys

def work():
    def hook(event, arguments, print=print):
        if event.startswith("cpython.") and not event.startswith("cpython.run"):
            print(event)
    sys.addaudithook(hook)

# -- cache of re: A cached pattern was compiled.
import re

class Told(str):
    def __del__(self):
        print("deleted")

def work():
    print(bool(re.match(Told("a+"), "aaa")))

# -- singledispatch: A function of the library dispatches on a class of the rank's.
import functools, json

class Told(dict):
    def __del__(self):
        print("deleted")

def work():
    json.told = Told()

# -- abstract class: A class of the rank's is registered with an abstract class.
import collections.abc

class Meta(type):
    def __del__(cls):
        print("class deleted")

class Thing(metaclass=Meta):
    pass

def work():
    collections.abc.Sized.register(Thing)
    print(issubclass(Thing, collections.abc.Sized))

# -- subclass of a shared class: A class of the rank's is a subclass of a shared one.
import threading

class Meta(type):
    def __del__(cls):
        print("class deleted")

class Thing(threading.Thread, metaclass=Meta):
    pass

def work():
    Thing()

# -- tempfile: An object with `__del__` is `tempfile.tempdir`.
import tempfile

class Told(str):
    def __del__(self):
        print("deleted")

def work():
    tempfile.tempdir = Told(".")

# -- linecache: An object with `__del__` is in the cache of lines.
import linecache

class Told:
    def __del__(self):
        print("deleted")

def work():
    linecache.cache["told"] = (1, None, [Told()], "told")

# -- importer cache: An object with `__del__` is in the cache of importers.
import sys

class Told:
    def __del__(self):
        print("deleted")

def work():
    sys.path_importer_cache["told"] = Told()

# -- random: The generator of `random` is replaced by one with `__del__`.
import random

class Told(random.Random):
    def __del__(self):
        print("deleted")

def work():
    random._inst = Told(1)
    print(random._inst.randrange(100))

# -- locale: The module locale's formatting uses an object with `__del__`.
import locale

class Told(dict):
    def __del__(self):
        print("deleted")

def work():
    locale._override_localeconv = Told()

# -- mimetypes: A file with a full buffer is in a table of the library.
import mimetypes

def work():
    mimetypes.init()
    mimetypes.log = open("out", "w")
    mimetypes.log.write("told")

# -- urllib: The opener of urllib has a `__del__`.
import urllib.request

class Told(urllib.request.OpenerDirector):
    def __del__(self):
        print("deleted")

def work():
    urllib.request.install_opener(Told())

# -- current process: An object with `__del__` is an attribute of the current process.
import multiprocessing

class Told:
    def __del__(self):
        print("deleted")

def work():
    multiprocessing.current_process().told = Told()

# -- main thread: An object with `__del__` is an attribute of the main thread.
import threading

class Told:
    def __del__(self):
        print("deleted")

def work():
    threading.main_thread().told = Told()

# -- main module: An object with `__del__` is an attribute of the main module.
import __main__

class Told:
    def __del__(self):
        print("deleted")

def work():
    __main__.told = Told()

# -- type subscript cache: A generic alias holds an object with `__del__`.
class Told:
    def __del__(self):
        print("deleted")

def work():
    global alias
    alias = list[Told()]

# -- typing cache: The cache of `typing` holds a class with a metaclass with `__del__`.
import typing

class Meta(type):
    def __del__(cls):
        print("class deleted")

class Thing(metaclass=Meta):
    pass

def work():
    typing.Optional[Thing]
