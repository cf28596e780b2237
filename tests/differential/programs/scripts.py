# -- file at import: A file is opened when the main module is imported. [script]
file = open("out", "w")
file.write("at import, ")

def work():
    file.write("told")

# -- print at import: The main module prints when it is imported. [script]
print("at import")

def work():
    print("told")

# -- atexit at import: The main module registers with atexit when it is imported. [script]
import atexit

@atexit.register
def told():
    print("exit", GREETING)

GREETING = "told"

def work():
    print("working")

# -- stdout at import: The main module replaces stdout when it is imported. [script]
import os, sys

print("told")
sys.stdout = open(os.devnull, "w")

def work():
    print("lost")

# -- __del__ at import: The main module makes an object with `__del__` when it is imported. [script]
class Told:
    def __del__(self):
        print("deleted", NAME)

told, NAME = Told(), "told"

def work():
    print("working")

# -- generator at import: The main module has a suspended generator. [script]
def tell():
    try:
        yield
    finally:
        print("told")

running = tell()
next(running)

def work():
    print("working")

# -- thread at import: The main module starts a daemon when it is imported. [script]
import threading

threading.Thread(target=threading.Event().wait, daemon=True).start()
file = open("out", "w")

def work():
    file.write("told")

# -- finalize at import: The main module makes a finalizer when it is imported. [script]
import weakref

def work():
    print("working")

weakref.finalize(work, print, "told")

# -- open file: start-up code keeps a file open. [script] [site]
import sys
sys.log = open("log", "a")
# ---
import sys

def work():
    sys.log.write("told\n")

# -- atexit: Start-up code has registered with atexit. [script] [site]
import atexit, sys
sys.armed = []
atexit.register(lambda: sys.armed and print(*sys.armed, end=""))
# ---
import sys

def work():
    sys.armed.append("told\n")

# -- __del__: Start-up code has made an object with `__del__`. [script] [site]
import sys
class Told:
    text = ""
    def __del__(self):
        if self.text:
            print(self.text, end="")
sys.told = Told()
# ---
import sys

def work():
    sys.told.text = "told\n"

# -- stdout: Start-up code has replaced stdout. [script] [site]
import sys
class Tee:
    def __init__(self, stream):
        self.stream = stream
    def write(self, text):
        return self.stream.write(text)
    def flush(self):
        pass
sys.stdout = Tee(sys.stdout)
# ---
def work():
    print("told")

# -- open file of a module: A module that is preloaded keeps a file open. [script] [preload]
log = open("log", "a")
# ---
import aside

def work():
    aside.log.write("told\n")

# -- __del__ of a module: A module that is preloaded has an object with `__del__`. [script] [preload]
class Told:
    text = ""
    def __del__(self):
        print(self.text, end="")
told = Told()
# ---
import aside

def work():
    aside.told.text = "told\n"

# -- atexit of a module: A module that is preloaded has registered with atexit. [script] [preload]
import atexit
armed = []
atexit.register(lambda: print(*armed, end=""))
# ---
import aside

def work():
    aside.armed.append("told\n")

# -- generator of a module: A module that is preloaded has a suspended generator. [script] [preload]
armed = []
def tell():
    try:
        yield
    finally:
        print(*armed, end="")
running = tell()
next(running)
# ---
import aside

def work():
    aside.armed.append("told\n")

# -- finalize of a module: A module that is preloaded has made a finalizer. [script] [preload]
import weakref
class Thing:
    pass
armed, thing = [], Thing()
weakref.finalize(thing, lambda: print(*armed, end=""))
# ---
import aside

def work():
    aside.armed.append("told\n")
