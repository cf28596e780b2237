# -- finalize: A finalizer's object lives until the end.
import weakref

class Thing:
    pass

def work():
    global thing
    thing = Thing()
    weakref.finalize(thing, print, "told")

# -- finalize not at exit: A finalizer that is not for the exit has an object that lives.
import weakref

class Thing:
    pass

def work():
    global thing
    thing = Thing()
    weakref.finalize(thing, print, "never told").atexit = False

# -- finalizers in order: Three finalizers are called in reverse order.
import weakref

class Thing:
    pass

def work():
    global thing
    thing = Thing()
    for n in range(3):
        weakref.finalize(thing, print, n)

# -- finalize that raises: A finalizer raises.
import weakref

class Thing:
    pass

def work():
    global thing
    thing = Thing()
    weakref.finalize(thing, print, "told")
    weakref.finalize(thing, int, "no number")

# -- finalize makes another: A finalizer makes another one.
import weakref

class Thing:
    pass

def again():
    print("first")
    weakref.finalize(thing, print, "second")

def work():
    global thing
    thing = Thing()
    weakref.finalize(thing, again)

# -- finalize of a class: A finalizer's object is a class.
import weakref

class Thing:
    pass

def work():
    weakref.finalize(Thing, print, "told")

# -- finalize of a module of the library: A finalizer's object is a module that all share.
import os, weakref

def work():
    weakref.finalize(os, print, "told")

# -- finalize detached: A finalizer is detached.
import weakref

class Thing:
    pass

def work():
    global thing
    thing = Thing()
    weakref.finalize(thing, print, "never told").detach()

# -- callback: A weak reference with a callback outlives its object.
import weakref

class Thing:
    pass

def work():
    global thing, reference
    thing = Thing()
    reference = weakref.ref(thing, lambda _: print("gone"))

# -- callback that is a builtin: The callback of a weak reference is `print`.
import weakref

class Thing:
    pass

kept = []

def work():
    thing = Thing()
    kept.append(weakref.ref(thing, print))
    thing.self = thing
    kept.append(weakref.ref(Thing, lambda _: print("class gone")))

# -- callback of a cycle: The object of a weak reference is in a cycle.
import weakref

class Thing:
    pass

def work():
    global reference
    thing = Thing()
    thing.self = thing
    reference = weakref.ref(thing, lambda _: print("gone"))

# -- callback that is a bound method: The callback of a weak reference is `list.append`.
import weakref

class Thing:
    pass

class Told(list):
    def __del__(self):
        print("deleted", len(self))

def work():
    global thing, reference, told
    told = Told()
    thing = Thing()
    reference = weakref.ref(thing, told.append)

# -- callback that is in C: The callback of a weak reference writes with `os.write`.
import functools, os, weakref

class Thing:
    pass

def work():
    global thing, reference
    thing = Thing()
    thing.kept = weakref.ref(thing, functools.partial(os.write, 1))
    reference = weakref.ref(thing, functools.partial(print, "gone"))

# -- on a shared object: A weak reference with a callback is to a function of the library.
import os, weakref

def work():
    global reference
    reference = weakref.ref(os.path.join, lambda _: print("gone"))

# -- kept by a shared object: A weak reference with a callback is kept by a module of the library.
import os, weakref

class Thing:
    pass

def work():
    global thing
    thing = Thing()
    os.kept = weakref.ref(thing, lambda _, print=print: print("gone"))

# -- proxy: A proxy with a callback outlives its object.
import weakref

class Thing:
    pass

def work():
    global thing, proxy
    thing = Thing()
    proxy = weakref.proxy(thing, lambda _: print("gone"))

# -- subclass with __del__: A subclass of `weakref.ref` has a `__del__`.
import weakref

class Thing:
    pass

class Reference(weakref.ref):
    def __del__(self):
        print("deleted")

def work():
    global thing, reference
    thing = Thing()
    reference = Reference(thing)

# -- subclass with slots: A subclass of `weakref.ref` has slots and a `__del__`.
import weakref

class Thing:
    pass

class Reference(weakref.ref):
    __slots__ = ("name",)
    def __del__(self):
        print("deleted", self.name)

def work():
    global thing, reference
    thing = Thing()
    reference = Reference(thing)
    reference.name = "slot"

# -- subclass that is dead: A subclass of `weakref.ref` with a `__del__` has lost its object.
import weakref

class Thing:
    pass

class Reference(weakref.ref):
    def __del__(self):
        print("deleted", self() is None)

def work():
    global reference
    reference = Reference(Thing())

# -- subclass of KeyedRef: A keyed reference has a `__del__`.
import weakref

class Thing:
    pass

class Reference(weakref.KeyedRef):
    def __del__(self):
        print("deleted", self.key)

def work():
    global thing, reference
    thing = Thing()
    reference = Reference(thing, None, "key")

# -- WeakMethod: A weak method has a callback.
import weakref

class Thing:
    def method(self):
        pass

def work():
    global thing, reference
    thing = Thing()
    reference = weakref.WeakMethod(thing.method, lambda _: print("gone"))

# -- WeakValueDictionary: A dictionary of weak values has a value with `__del__`.
import weakref

class Told:
    def __del__(self):
        print("deleted", len(values) if values is not None else None)

values = weakref.WeakValueDictionary()

def work():
    global told
    told = values["key"] = Told()

# -- WeakKeyDictionary: A dictionary of weak keys has a value with `__del__`.
import weakref

class Key:
    pass

class Told:
    def __del__(self):
        print("deleted")

def work():
    global key, values
    key = Key()
    values = weakref.WeakKeyDictionary({key: Told()})

# -- WeakKeyDictionary with a shared key: A dictionary of weak keys has a shared function as a key.
import os, weakref

class Told:
    def __del__(self):
        print("deleted")

def work():
    global values
    values = weakref.WeakKeyDictionary({os.path.join: Told()})

# -- WeakSet: A set of weak references has an object with `__del__`.
import weakref

class Told:
    def __del__(self):
        print("deleted")

def work():
    global told, kept
    told = Told()
    kept = weakref.WeakSet([told])
