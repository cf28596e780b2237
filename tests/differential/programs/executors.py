# -- threads: An executor of threads is not shut down.
from concurrent.futures import ThreadPoolExecutor

def work():
    global executor
    executor = ThreadPoolExecutor(1)
    for n in range(3):
        executor.submit(print, n)

# -- threads dropped: An executor of threads is dropped at once.
from concurrent.futures import ThreadPoolExecutor

def work():
    ThreadPoolExecutor(1).submit(print, "told")

# -- future with a callback: A future's callback prints.
from concurrent.futures import ThreadPoolExecutor

def work():
    global executor
    executor = ThreadPoolExecutor(1)
    executor.submit(int, "1").add_done_callback(lambda future: print("done", future.result()))

# -- exception never asked for: A future has an exception that nobody asks for.
from concurrent.futures import ThreadPoolExecutor

def work():
    global future
    future = ThreadPoolExecutor(1).submit(int, "no number")

# -- initializer: The initializer of an executor's threads keeps an object with `__del__`.
import threading
from concurrent.futures import ThreadPoolExecutor

storage = threading.local()

class Told:
    def __del__(self):
        print("deleted")

def begin():
    storage.told = Told()

def work():
    global executor
    executor = ThreadPoolExecutor(1, initializer=begin)
    executor.submit(print, "ran")

# -- processes: An executor of processes is shut down (else the original hangs), and kept.
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

def work():
    global executor
    executor = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork"))
    print(executor.submit(pow, 2, 10).result())
    executor.shutdown()

# -- pool: A pool is neither closed nor joined.
import multiprocessing, warnings

def work():
    global pool
    warnings.simplefilter("ignore")
    pool = multiprocessing.get_context("fork").Pool(1)
    print(pool.apply(pow, (2, 10)))

# -- pool of threads: A pool of threads is neither closed nor joined.
import warnings
from multiprocessing.pool import ThreadPool

def work():
    global pool
    warnings.simplefilter("ignore")
    pool = ThreadPool(2)
    print(sum(pool.imap(abs, range(-9, 9))))

# -- scheduler: A scheduler has an event that never comes.
import sched

def work():
    global scheduler
    scheduler = sched.scheduler()
    scheduler.enter(60, 1, print, ("never",))
    print("told")
