# -- global: A generator stands in a try block with a finally.
def told():
    try:
        yield
    finally:
        print("told")

def work():
    global running
    running = told()
    next(running)

# -- local: A generator is a local variable when the function returns.
def told():
    try:
        yield
    finally:
        print("told")

def work():
    running = told()
    next(running)

# -- never begun: A generator was never begun.
def told():
    try:
        yield
    finally:
        print("never told")

def work():
    global running
    running = told()

# -- exhausted: A generator has come to its end.
def told():
    try:
        yield
    finally:
        print("told early")

def work():
    global running
    running = told()
    list(running)

# -- with: A generator stands in a with block.
import contextlib

@contextlib.contextmanager
def manager():
    yield
    print("never told")

def told():
    with manager():
        yield

def work():
    global running
    running = told()
    next(running)

# -- with a file: A generator has a file open in a with block.
def told():
    with open("out", "w") as file:
        file.write("told")
        yield

def work():
    global running
    running = told()
    next(running)

# -- except GeneratorExit: A generator catches that it is closed.
def told():
    try:
        yield
    except GeneratorExit:
        print("told")

def work():
    global running
    running = told()
    next(running)

# -- ignores GeneratorExit: A generator yields when it is closed.
def told():
    try:
        yield
    finally:
        yield

def work():
    global running
    running = told()
    next(running)

# -- raises: A generator raises when it is closed.
def told():
    try:
        yield
    finally:
        raise ValueError("told")

def work():
    global running
    running = told()
    next(running)

# -- reads its globals: A generator uses the globals of its module when it is closed.
GREETING = "told"

def told():
    try:
        yield
    finally:
        print(GREETING)

def work():
    global running
    running = told()
    next(running)

# -- in a cycle: A generator is in a cycle with what it iterates over.
def told(ring):
    try:
        yield
    finally:
        print("told")

def work():
    ring = []
    ring.append(told(ring))
    next(ring[0])

# -- delegating: A generator delegates to another one.
def inner():
    try:
        yield
    finally:
        print("inner")

def outer():
    try:
        yield from inner()
    finally:
        print("outer")

def work():
    global running
    running = outer()
    next(running)

# -- expression: A generator expression iterates over a generator.
def told():
    try:
        yield 1
        yield 2
    finally:
        print("told")

def work():
    global running
    running = (number for number in told())
    next(running)

# -- islice: A generator is held by an iterator of itertools.
import itertools

def told():
    try:
        yield from range(9)
    finally:
        print("told")

def work():
    global running
    running = itertools.islice(itertools.chain(told(), [1]), 5)
    next(running)

# -- zip: Two generators are held by a zip.
def told(name):
    try:
        yield from range(9)
    finally:
        print(name)

def work():
    global running
    running = zip(told("first"), told("second"))
    next(running)

# -- coroutine by send: A generator that is sent values sums them up.
def total():
    number = 0
    try:
        while True:
            number += yield
    finally:
        print(number)

def work():
    global running
    running = total()
    next(running)
    running.send(20)
    running.send(22)

# -- on a function: A generator is an attribute of a function.
def told():
    try:
        yield
    finally:
        print("told")

def work():
    work.running = told()
    next(work.running)

# -- in a default: A generator is the default of an argument.
def told():
    try:
        yield
    finally:
        print("told")

def work():
    global function
    running = told()
    next(running)
    def function(argument=running):
        pass

# -- in a closure: A generator is in a closure.
def told():
    try:
        yield
    finally:
        print("told")

def work():
    global function
    running = told()
    next(running)
    def function():
        return running

# -- coroutine: A coroutine is suspended in a try block.
import types

@types.coroutine
def pause():
    yield

async def told():
    try:
        await pause()
    finally:
        print("told")

def work():
    global running
    running = told()
    running.send(None)

# -- coroutine with an async manager: A coroutine is suspended in an async with block.
import types

@types.coroutine
def pause():
    yield

class Manager:
    async def __aenter__(self):
        pass
    async def __aexit__(self, *error):
        print("left for", error[0].__name__)

async def told():
    async with Manager():
        await pause()

def work():
    global running
    running = told()
    running.send(None)

# -- async generator: An asynchronous generator is suspended, and no loop is there.
async def told():
    try:
        yield
    finally:
        print("told")

def work():
    global running
    running = told()
    try:
        running.asend(None).send(None)
    except StopIteration:
        print("suspended")

# -- async generator with hooks: An asynchronous generator has a finalizer of `sys.set_asyncgen_hooks`.
import sys

async def told():
    try:
        yield
    finally:
        print("told")

def work():
    global running
    sys.set_asyncgen_hooks(finalizer=lambda generator: print("finalizer", generator.__name__))
    running = told()
    try:
        running.asend(None).send(None)
    except StopIteration:
        print("suspended")

# -- frame of an exception: A generator lives in the traceback of an exception that is kept.
def told():
    try:
        yield
    finally:
        print("told")

def work():
    global error
    try:
        running = told()
        next(running)
        raise ValueError
    except ValueError as raised:
        error = raised

# -- many: A thousand generators are suspended.
def told(number):
    try:
        yield
    finally:
        if number == 500:
            print(number)

def work():
    global running
    running = [told(number) for number in range(1000)]
    for one in running:
        next(one)
