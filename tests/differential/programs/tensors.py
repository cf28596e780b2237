# -- package: The writer of a package is not closed. [torch]
import torch, torch.package

def work():
    global exporter
    exporter = torch.package.PackageExporter("p.pt")
    exporter.save_text("a", "b", "hello")

# -- writer: A `PyTorchFileWriter` has not written its end. [torch]
import torch

def work():
    global writer
    writer = torch._C.PyTorchFileWriter("w.pt")
    writer.write_record("record", b"told", 4)

# -- writer on a module: A `PyTorchFileWriter` is an attribute of torch's. [torch]
import torch

def work():
    torch.told = torch._C.PyTorchFileWriter("w.pt")
    torch.told.write_record("record", b"told", 4)

# -- FileStore: A store deletes its file at the end. [torch]
import torch.distributed

def work():
    global store
    store = torch.distributed.FileStore("store", 1)
    store.set("a", "b")

# -- prefix of a FileStore: A store is held by another one, in C++ only. [torch]
import torch.distributed

def work():
    global store
    store = torch.distributed.PrefixStore("prefix", torch.distributed.FileStore("store", 1))
    store.set("a", "b")

# -- save: A tensor was saved into a file that is open. [torch]
import torch

def work():
    global file
    file = open("out", "wb")
    torch.save(torch.zeros(3), file)
    print(file.tell() > 0)

# -- tensor: A global tensor has a gradient, a hook and a grad_fn. [torch]
import torch

class Told:
    def __del__(self):
        print("deleted")
    def __call__(self, gradient):
        print("hook")

def work():
    global tensor, result
    tensor = torch.ones(3, requires_grad=True)
    tensor.register_hook(Told())
    result = (tensor * 2).sum()
    result.backward()

# -- subclass: A subclass of a tensor has a `__del__`. [torch]
import torch

class Told(torch.Tensor):
    def __del__(self):
        print("deleted")

def work():
    global tensor
    tensor = torch.zeros(3).as_subclass(Told)

# -- saved by autograd: An object with `__del__` is held by autograd, in C++ only. [torch]
import torch

class Told:
    def __del__(self):
        print("deleted")

class Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx, tensor):
        ctx.told = Told()
        return tensor * 2
    @staticmethod
    def backward(ctx, gradient):
        return gradient * 2

def work():
    global result
    result = Double.apply(torch.ones(3, requires_grad=True))

# -- threads: OpenMP and autograd have threads. [torch]
import torch

def work():
    torch.set_num_threads(2)
    matrix = torch.rand(200, 200, requires_grad=True)
    (matrix @ matrix).sum().backward()
    print(matrix.grad.shape)

# -- loader: A loader's worker lives. [torch]
import torch, torch.utils.data

def work():
    global batches
    loader = torch.utils.data.DataLoader([1, 2, 3], num_workers=1, persistent_workers=True, multiprocessing_context="fork")
    batches = iter(loader)
    print(next(batches))

# -- group: A group of one is not destroyed. [torch]
import os, torch, torch.distributed

def work():
    torch.distributed.init_process_group("gloo", init_method=f"file://{os.getcwd()}/group", rank=0, world_size=1)
    tensor = torch.ones(1)
    torch.distributed.all_reduce(tensor)
    print(tensor.item())
    os.unlink("group")

# -- memory map: A tensor is mapped from a file. [torch]
import torch

def work():
    global tensor
    tensor = torch.from_file("out", shared=True, size=4, dtype=torch.uint8)
    tensor[:] = torch.tensor([116, 111, 108, 100])
