# -- file: A file handler is open.
import logging

def work():
    logging.basicConfig(filename="log", level=logging.INFO, format="%(levelname)s %(message)s")
    logging.info("told")

# -- file with delay: A file handler opens its file late.
import logging

def work():
    logging.getLogger().addHandler(logging.FileHandler("log", delay=True))
    logging.warning("told")

# -- file with delay and nothing: A file handler never opens its file.
import logging

def work():
    logging.getLogger().addHandler(logging.FileHandler("log", delay=True))

# -- memory: A memory handler has records to pass on.
import logging, logging.handlers

def work():
    target = logging.FileHandler("log")
    logging.getLogger().addHandler(logging.handlers.MemoryHandler(100, target=target))
    logging.warning("told")

# -- memory to stdout: A memory handler has records for stdout.
import logging, logging.handlers, sys

def work():
    handler = logging.handlers.MemoryHandler(100, target=logging.StreamHandler(sys.stdout))
    logging.getLogger("one").addHandler(handler)
    logging.getLogger("one").warning("told")

# -- memory that doesn't flush: A memory handler does not flush when it is closed.
import logging, logging.handlers, sys

def work():
    target = logging.StreamHandler(sys.stdout)
    handler = logging.handlers.MemoryHandler(100, target=target, flushOnClose=False)
    logging.getLogger("one").addHandler(handler)
    logging.getLogger("one").warning("lost")

# -- handler without close: A handler of the user's has a `__del__`, and no close.
import logging

class Handler(logging.Handler):
    count = 0
    def emit(self, record):
        self.count += 1
    def __del__(self):
        print(self.count)

def work():
    logging.getLogger("one").addHandler(Handler())
    logging.getLogger("one").warning("told")

# -- handler with flush: A handler of the user's writes when it is flushed.
import logging

class Handler(logging.Handler):
    count = 0
    def emit(self, record):
        self.count += 1
    def flush(self):
        print(self.count)

def work():
    logging.getLogger().addHandler(Handler())
    logging.warning("told")

# -- handler that raises: A handler of the user's raises when it is closed.
import logging

class Handler(logging.Handler):
    def emit(self, record):
        pass
    def close(self):
        raise ValueError("close")

def work():
    logging.getLogger().addHandler(Handler())
    logging.warning("told")

# -- handler with a file: A handler of the user's has a file that it never flushes.
import logging

class Handler(logging.Handler):
    def __init__(self):
        super().__init__()
        self.file = open("log", "w")
    def emit(self, record):
        self.file.write(record.getMessage())

def work():
    logging.getLogger().addHandler(Handler())
    logging.warning("told")

# -- stream: A stream handler writes into a file with a buffer that it never flushes.
import logging

class Handler(logging.StreamHandler):
    def flush(self):
        pass

def work():
    logging.getLogger().addHandler(Handler(open("log", "w")))
    logging.warning("told")

# -- no handler: The last resort writes to stderr.
import logging

def work():
    logging.warning("told")

# -- rotating: A rotating handler has rolled over.
import logging, logging.handlers

def work():
    handler = logging.handlers.RotatingFileHandler("log", maxBytes=20, backupCount=3)
    logging.getLogger().addHandler(handler)
    for n in range(10):
        logging.warning("record %d", n)

# -- queue listener: A queue listener is not stopped.
import logging, logging.handlers, queue

def work():
    global listener
    items = queue.Queue()
    listener = logging.handlers.QueueListener(items, logging.FileHandler("log"))
    logging.getLogger().addHandler(logging.handlers.QueueHandler(items))
    listener.start()
    logging.warning("told")
    items.join()

# -- filter: A filter of a logger's has a `__del__`.
import logging

class Filter(logging.Filter):
    def __del__(self):
        print("deleted")

def work():
    logging.getLogger("one").addFilter(Filter())

# -- logger class: The class of loggers is the user's, and has a `__del__`.
import logging

class Logger(logging.Logger):
    def __del__(self):
        print("deleted", self.name)

def work():
    logging.setLoggerClass(Logger)
    logging.getLogger("one")

# -- record factory: The record factory is an object with a `__del__`.
import logging

class Factory:
    def __call__(self, *args, **kwargs):
        return logging.LogRecord(*args, **kwargs)
    def __del__(self):
        print("deleted")

def work():
    logging.setLogRecordFactory(Factory())
    logging.warning("told")

# -- level name: An object with `__del__` is the name of a level.
import logging

class Name(str):
    def __del__(self):
        print("deleted")

def work():
    logging.addLevelName(35, Name("NOTICE"))
    logging.log(35, "told")

# -- at exit: A function of atexit logs.
import atexit, logging

def work():
    logging.basicConfig(filename="log")
    atexit.register(logging.warning, "told")

# -- after shutdown: A `__del__` logs.
import logging

class Told:
    def __del__(self):
        logging.warning("told")

def work():
    global told
    logging.basicConfig(filename="log")
    told = Told()

# -- captured warnings: Warnings are captured by logging.
import logging, warnings

def work():
    logging.basicConfig(filename="log")
    logging.captureWarnings(True)
    warnings.warn("told")

# -- trace function: A trace function of the user's has a `__del__`.
import sys

class Trace:
    calls = 0
    def __call__(self, frame, event, argument):
        self.calls += 1
    def __del__(self):
        print("deleted", self.calls > 0)

def work():
    sys.settrace(Trace())
    len(sorted([1]))
    (lambda: None)()
    sys.settrace(None)
