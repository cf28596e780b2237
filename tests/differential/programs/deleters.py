# -- global: A global object has a `__del__`.
class Told:
    def __del__(self):
        print("deleted")

def work():
    global told
    told = Told()

# -- local: A local object has a `__del__`.
class Told:
    def __del__(self):
        print("deleted")

def work():
    told = Told()
    print("made")

# -- cycle: An object with `__del__` is in a cycle.
class Told:
    def __del__(self):
        print("deleted")

def work():
    told = Told()
    told.self = told

# -- in a list: Objects with `__del__` are in a global list.
class Told:
    def __init__(self, name):
        self.name = name
    def __del__(self):
        print(self.name)

def work():
    global told
    told = [Told(name) for name in "abc"]

# -- two globals: Two global objects have a `__del__` each.
class Told:
    def __init__(self, name):
        self.name = name
    def __del__(self):
        print(self.name)

def work():
    global first, second
    first, second = Told("first"), Told("second")

# -- private names first: A name with an underscore goes before the others.
class Told:
    def __init__(self, name):
        self.name = name
    def __del__(self):
        print(self.name)

def work():
    global plain, _private
    plain, _private = Told("plain"), Told("private")

# -- parent and child: An object with `__del__` owns another one.
class Told:
    def __init__(self, name, child=None):
        self.name, self.child = name, child
    def __del__(self):
        print(self.name, self.child is None)

def work():
    global told
    told = Told("parent", Told("child"))

# -- globals are there: A `__del__` uses the globals of its module.
GREETING = "told"

def greet():
    return GREETING

class Told:
    def __del__(self):
        print(greet())

def work():
    global told
    told = Told()

# -- globals are None: A `__del__` says which globals are None.
first = object()

class Told:
    def __del__(self):
        print(first is None, last is None, Told is None)

def work():
    global told
    told = Told()

last = object()

# -- in a cycle with its globals: A `__del__` of a cycle uses the globals of its module.
GREETING = "told"

class Told:
    def __del__(self):
        print(GREETING)

def work():
    global told
    told = Told()
    told.self = told

# -- imports what is there: A `__del__` imports a module that is imported.
import json

class Told:
    def __del__(self):
        import json
        print(json.dumps([1]))

def work():
    global told
    told = Told()

# -- imports what is new: A `__del__` imports a module that nobody has imported.
class Told:
    def __del__(self):
        import colorsys
        print(colorsys.rgb_to_hsv(0, 0, 0))

def work():
    global told
    told = Told()

# -- imports what is missing: A `__del__` imports a module that does not exist.
class Told:
    def __del__(self):
        import no_such_module

def work():
    global told
    told = Told()

# -- writes a file: A `__del__` writes a file.
class Told:
    def __del__(self, open=open):
        with open("out", "w") as file:
            file.write("told")

def work():
    global told
    told = Told()

# -- opens a file: A `__del__` leaves a file open.
class Told:
    def __del__(self, open=open):
        self.kept = open("out", "w")
        self.kept.write("told")

def work():
    global told
    told = Told()

# -- asks whether it ends: A `__del__` asks `sys.is_finalizing`.
import sys

class Told:
    def __del__(self, is_finalizing=sys.is_finalizing):
        print(is_finalizing())

def work():
    global told
    told = Told()

# -- asks whether it ends, in a cycle: A `__del__` of a cycle asks `sys.is_finalizing`.
import sys

class Told:
    def __del__(self, is_finalizing=sys.is_finalizing):
        print(is_finalizing())

def work():
    told = Told()
    told.self = told

# -- looks at sys: A `__del__` looks at what is left of `sys`.
import sys

class Told:
    def __del__(self, sys=sys):
        print(sys.argv is None, sys.path is None, sys.modules is None, sys.meta_path is None)

def work():
    global told
    told = Told()

# -- looks at the modules: A `__del__` looks whether its module is in `sys.modules`.
import sys

class Told:
    def __del__(self, modules=sys.modules, name=__name__):
        print(name in modules)

def work():
    global told
    told = Told()

# -- resurrects: A `__del__` puts its object into a global list.
kept = []

class Told:
    def __del__(self):
        print("deleted")
        kept.append(self)

def work():
    Told()
    print(len(kept))

# -- resurrects at the end: A `__del__` puts its object into a shared module at the end.
import os

class Told:
    def __del__(self, os=os):
        print("deleted")
        os.kept = self

def work():
    global told
    told = Told()

# -- raises: A `__del__` raises.
class Told:
    def __del__(self):
        raise ValueError("told")

def work():
    global told
    told = Told()

# -- exits: A `__del__` raises SystemExit.
class Told:
    def __del__(self):
        raise SystemExit(3)

def work():
    global told
    told = Told()

# -- exits at once: A `__del__` leaves by `os._exit`.
import os

class Told:
    def __del__(self, leave=os._exit):
        leave(3)

def work():
    global told
    print("lost")
    told = Told()

# -- kills: A `__del__` ends the process by a signal.
import os, signal

class Told:
    def __del__(self, kill=os.kill, getpid=os.getpid, signum=signal.SIGKILL):
        kill(getpid(), signum)

def work():
    global told
    told = Told()

# -- starts a thread: A `__del__` starts a thread.
import threading

class Told:
    def __del__(self):
        try:
            thread = threading.Thread(target=print, args=("thread",))
            thread.start()
            thread.join()
        except RuntimeError as error:
            print(type(error).__name__)

def work():
    told = Told()
    told.self = told
    del told
    import gc
    gc.collect()

# -- makes another: A `__del__` makes another object with a `__del__`.
class Told:
    def __init__(self, count):
        self.count = count
    def __del__(self):
        print(self.count)
        if self.count:
            type(self)(self.count - 1)

def work():
    global told
    told = Told(3)

# -- runs a process: A `__del__` runs a program.
import os

class Told:
    def __del__(self, system=os.system):
        system("echo told")

def work():
    global told
    told = Told()

# -- collects: A `__del__` calls the collector.
import gc

class Told:
    def __del__(self, collect=gc.collect):
        collect()
        print("deleted")

def work():
    global told
    told = Told()

# -- prints to stderr: A `__del__` prints to stderr.
import sys

class Told:
    def __del__(self):
        print("deleted", file=sys.stderr)

def work():
    global told
    told = Told()

# -- slots: An object without a dictionary has a `__del__`.
class Told:
    __slots__ = ("name",)
    def __del__(self):
        print(self.name)

def work():
    global told
    told = Told()
    told.name = "slot"

# -- no slots: An object that the collector does not track has a `__del__`.
class Told:
    __slots__ = ()
    def __del__(self):
        print("deleted")

def work():
    global told
    told = Told()

# -- no slots, in a dict: A dictionary that the collector does not track has an object with `__del__`.
class Told(float):
    __slots__ = ()
    def __del__(self):
        print("deleted", float(self))

def work():
    global told
    told = {"key": (Told(1.5),)}

# -- not a dict of its own: A module's dictionary holds an untracked tuple of an untracked object.
class Told(bytes):
    def __del__(self):
        print("deleted", len(self))

def work():
    global told
    told = (Told(b"told"),)

# -- subclasses of builtins: Subclasses of many builtin types have a `__del__`.
def named(base, *arguments):
    class Told(base):
        def __del__(self):
            print(base.__name__)
    return Told(*arguments)

def work():
    global told
    told = [
        named(int, 5), named(str, "text"), named(bytes, b"x"), named(float, 1.5), named(complex, 1j),
        named(list), named(dict), named(tuple, (1,)), named(set), named(frozenset, (1,)), named(bytearray, b"x"),
        named(Exception, "text"), named(property), named(staticmethod, len), named(classmethod, len),
        named(map, len, ()), named(enumerate, ()), named(reversed, []), named(zip), named(object),
    ]

# -- subclasses of the library: Subclasses of types of the library have a `__del__`.
import array, collections, datetime, decimal, functools, itertools, random, types

def named(base, *arguments):
    class Told(base):
        def __del__(self):
            print(base.__name__)
    return Told(*arguments)

def work():
    global told
    told = [
        named(collections.OrderedDict), named(collections.deque), named(collections.defaultdict),
        named(collections.Counter), named(datetime.datetime, 2020, 1, 1), named(decimal.Decimal, 1),
        named(functools.partial, print), named(random.Random), named(types.SimpleNamespace),
        named(array.array, "i"), named(itertools.count), named(itertools.chain),
    ]

# -- metaclass: A metaclass has a `__del__`.
class Meta(type):
    def __del__(cls):
        print("class deleted")

class Thing(metaclass=Meta):
    pass

def work():
    pass

# -- hidden by a metaclass: A metaclass hides that its class has a `__del__`.
class Meta(type):
    def __getattribute__(cls, name):
        if name == "__del__":
            raise AttributeError(name)
        return super().__getattribute__(name)

class Told(metaclass=Meta):
    def __del__(self):
        print("deleted")

def work():
    global told
    told = Told()

# -- hidden by __class__: An object says that it is of another class.
class Told:
    @property
    def __class__(self):
        return int
    def __del__(self):
        print("deleted")

def work():
    global told
    told = Told()

# -- given late: A class is given a `__del__` after its object was made.
class Told:
    pass

def work():
    global told
    told = Told()
    Told.__del__ = lambda self: print("deleted")

# -- class changed: An object is given a class with `__del__`.
class Thing:
    pass

class Told:
    def __del__(self):
        print("deleted")

def work():
    global told
    told = Thing()
    told.__class__ = Told

# -- inherited: A `__del__` is inherited from two bases.
class First:
    def __del__(self):
        print("first")

class Second:
    def __del__(self):
        print("second")

class Told(First, Second):
    def __del__(self):
        super().__del__()
        Second.__del__(self)

def work():
    global told
    told = Told()

# -- not on the instance: A `__del__` of an instance is never called.
class Thing:
    pass

def work():
    global thing
    thing = Thing()
    thing.__del__ = lambda: print("never told")

# -- module: A module's class has a `__del__`.
import sys, types

class Module(types.ModuleType):
    def __del__(self):
        print("deleted", self.__name__)

def work():
    sys.modules["made"] = Module("made")

# -- module of its own: A module's class is changed to one with `__del__`.
import sys, types

class Module(types.ModuleType):
    def __del__(self):
        print("deleted")

def work():
    module = sys.modules["made"] = types.ModuleType("made")
    module.__class__ = Module

# -- not a module: An object with `__del__` is in `sys.modules`.
import sys

class Told:
    def __del__(self):
        print("deleted")

def work():
    sys.modules["made"] = Told()

# -- second module: A module that the rank has made holds an object with `__del__`.
import sys, types

class Told:
    def __del__(self):
        print("deleted")

def work():
    sys.modules["made"] = types.ModuleType("made")
    sys.modules["made"].told = Told()

# -- removed module: A module that is no longer in `sys.modules` is kept by a function.
import types

class Told:
    def __del__(self):
        print("deleted")

def work():
    global function
    module = types.ModuleType("made")
    module.told = Told()
    exec("def function(): pass", vars(module))
    function = module.function

# -- modules in order: Three modules have objects with `__del__`.
import sys, types

class Told:
    def __init__(self, name):
        self.name = name
    def __del__(self):
        print(self.name)

def work():
    for name in ("one", "two", "three"):
        module = sys.modules[name] = types.ModuleType(name)
        module.told = Told(name)

# -- in a traceback: An object with `__del__` is in a frame of a kept traceback.
class Told:
    def __del__(self):
        print("deleted")

def fail():
    told = Told()
    raise ValueError

def work():
    global error
    try:
        fail()
    except ValueError as raised:
        error = raised

# -- last exception: An object with `__del__` is in `sys.last_value`.
import sys

class Told(Exception):
    def __del__(self):
        print("deleted")

def work():
    sys.last_value = sys.last_exc = Told()

# -- frame: A frame of a generator's is kept.
import sys

class Told:
    def __del__(self):
        print("deleted")

def run():
    told = Told()
    return sys._getframe()

def work():
    global frame
    frame = run()

# -- cell: An object with `__del__` is in a closure.
class Told:
    def __del__(self):
        print("deleted")

def work():
    global function
    told = Told()
    def function():
        return told

# -- descriptor: An object with `__del__` is an attribute of a class.
class Told:
    def __del__(self):
        print("deleted")

class Thing:
    told = Told()

def work():
    pass

# -- interned: A dictionary of a class's is changed while objects are deleted.
class Told:
    registry = {}
    def __init__(self, name):
        self.name = name
        self.registry[name] = self
    def __del__(self):
        print(self.name, len(self.registry))

def work():
    for name in "ab":
        Told(name)

# -- deep: A chain of ten thousand objects ends in one with `__del__`.
class Told:
    def __del__(self):
        print("deleted")

def work():
    global chain
    chain = Told()
    for _ in range(10_000):
        chain = (chain,)

# -- at import: An object with `__del__` was made at the import of its module.
class Told:
    def __del__(self):
        print("deleted", NAME)

NAME = "told"
told = Told()

def work():
    print("working")

# -- lru_cache: An object with `__del__` is in a cache of a function's.
import functools

class Told:
    def __del__(self):
        print("deleted")

@functools.lru_cache
def cached():
    return Told()

def work():
    cached()

# -- cached_property: An object with `__del__` is a cached property.
import functools

class Told:
    def __del__(self):
        print("deleted")

class Thing:
    @functools.cached_property
    def told(self):
        return Told()

def work():
    global thing
    thing = Thing()
    thing.told

# -- enum: A member of an enum has a value with `__del__`.
import enum

class Told:
    def __del__(self):
        print("deleted")

class Kind(enum.Enum):
    ONE = Told()

def work():
    pass

# -- dataclass: A field of a dataclass has a default with `__del__`.
import dataclasses

class Told:
    def __del__(self):
        print("deleted")

@dataclasses.dataclass
class Thing:
    told: Told = dataclasses.field(default_factory=Told)

def work():
    global thing
    thing = Thing()
