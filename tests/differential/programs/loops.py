# -- run: A coroutine was run to its end.
import asyncio

async def told():
    await asyncio.sleep(0)
    print("told")

def work():
    asyncio.run(told())

# -- never awaited: A coroutine is never awaited.
async def told():
    pass

def work():
    told()

# -- never awaited, global: A global coroutine is never awaited.
async def told():
    pass

def work():
    global coroutine
    coroutine = told()

# -- not closed: A loop is not closed.
import asyncio

def work():
    global loop
    loop = asyncio.new_event_loop()
    loop.run_until_complete(asyncio.sleep(0))

# -- not closed, with warnings: A loop is not closed, and warnings are shown.
import asyncio, warnings

def work():
    global loop
    warnings.simplefilter("always", ResourceWarning)
    loop = asyncio.new_event_loop()

# -- pending: A task is pending when its loop is closed.
import asyncio

async def told():
    try:
        await asyncio.sleep(60)
    finally:
        print("told")

def work():
    global task, loop
    loop = asyncio.new_event_loop()
    task = loop.create_task(told(), name="told")
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()

# -- pending, not closed: A task is pending, and its loop is not closed.
import asyncio

async def told():
    await asyncio.sleep(60)

def work():
    global task, loop
    loop = asyncio.new_event_loop()
    task = loop.create_task(told(), name="told")
    loop.run_until_complete(asyncio.sleep(0))

# -- never retrieved: A task's exception is never retrieved.
import asyncio

async def fail():
    raise ValueError("told")

def work():
    global task
    loop = asyncio.new_event_loop()
    task = loop.create_task(fail(), name="fail")
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()

# -- future: A future's exception is never retrieved.
import asyncio

def work():
    global future
    loop = asyncio.new_event_loop()
    future = loop.create_future()
    future.set_exception(ValueError("told"))
    loop.close()

# -- async generator: An asynchronous generator is suspended when its loop ends.
import asyncio

async def told():
    try:
        yield 1
    finally:
        print("told")

async def run():
    global running
    running = told()
    await running.asend(None)

def work():
    asyncio.run(run())

# -- async generator of a loop that lives: An asynchronous generator is suspended, and its loop is not closed.
import asyncio

async def told():
    try:
        yield 1
    finally:
        print("told")

async def run():
    global running
    running = told()
    await running.asend(None)

def work():
    global loop
    loop = asyncio.new_event_loop()
    loop.run_until_complete(run())

# -- executor of a loop: The executor of a loop has a thread.
import asyncio

def work():
    global loop
    loop = asyncio.new_event_loop()
    print(loop.run_until_complete(loop.run_in_executor(None, pow, 2, 10)))

# -- server: A server listens when the function returns.
import asyncio

def work():
    global loop, server
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(print, "127.0.0.1", 0))
    print(len(server.sockets))

# -- subprocess: A process of a loop's has ended.
import asyncio

async def run():
    process = await asyncio.create_subprocess_exec("echo", "told", stdout=asyncio.subprocess.PIPE)
    print(await process.communicate())

def work():
    asyncio.run(run())

# -- exception handler: The exception handler of a loop has a `__del__`.
import asyncio

class Told:
    def __del__(self):
        print("deleted")
    def __call__(self, loop, context):
        print(context["message"])

def work():
    global loop
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(Told())

# -- exit in a task: A task calls `sys.exit`.
import asyncio, sys

async def run():
    try:
        sys.exit(4)
    finally:
        print("told")

def work():
    asyncio.run(run())

# -- loop as current: A loop is the current one, and has a call to come.
import asyncio

class Told:
    def __del__(self):
        print("deleted")
    def __call__(self):
        print("never called")

def work():
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.call_later(60, Told())
