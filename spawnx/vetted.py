"""All that spawnx knows of third-party libraries. To add a library, add an entry to `VETTED`.

A library is vetted when it was tried in clones: threads, autograd, OpenMP, DDP over gloo. State that a library renews
by `os.register_at_fork` needs no entry: clones call those functions, too.
"""

from __future__ import annotations

import functools
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def _renew_numpy() -> None:
    # numpy imports this module when it is first used. If a rank imports it later, it gets a new generator then.
    random: Any = sys.modules.get("numpy.random")
    if random is not None:
        random.seed()


def _renew_torch() -> None:
    import torch

    torch.default_generator.seed()


def _may_torch_end() -> bool:
    """Whether torch uses no device and no process group: these are finalized in C, which informs device and peers."""
    torch: Any = sys.modules["torch"]
    devices = [torch.cuda, *([torch.xpu] if hasattr(torch, "xpu") else [])]
    return not any(device.is_initialized() for device in devices) and not (
        torch.distributed.is_available() and torch.distributed.is_initialized()
    )


class Vetted:
    """A `Vetted` has the facts about one library that was tried in clones.

    Attributes:
        renew: renews, in a clone, the state that must differ between ranks.
        may_end: returns whether a process that uses the library may end without being finalized.
        noisy: C++ classes whose objects do more than free memory when they are destroyed, as "module.name". The
            collector doesn't track the objects, and C++ may hold them when no Python object does. So a rank that has
            called such a constructor is finalized.
        rebuilding: module -> the functions that rebuild pickled objects whose pickles any number of ranks may read.
            Other functions of these modules count their readers, or may do so.
        read_at_import: the prefixes of the environment variables that the library reads when it is imported.
    """

    __slots__ = ("may_end", "noisy", "read_at_import", "rebuilding", "renew")

    def __init__(
        self,
        renew: Callable[[], None],
        may_end: Callable[[], bool] = lambda: True,
        noisy: tuple[str, ...] = (),
        rebuilding: dict[str, frozenset[str]] | None = None,
        read_at_import: tuple[bytes, ...] = (),
    ) -> None:
        self.renew = renew
        self.may_end = may_end
        self.noisy = noisy
        self.rebuilding = rebuilding or {}
        self.read_at_import = read_at_import


# The variables of OpenMP and BLAS, which numpy and torch load.
_OF_MATHS = (
    b"OMP_", b"GOMP_", b"KMP_", b"MKL_", b"MKLDNN_", b"OPENBLAS_", b"GOTO_", b"BLIS_",
)  # fmt: skip

VETTED = {
    "numpy": Vetted(_renew_numpy, read_at_import=(*_OF_MATHS, b"NPY_", b"NUMPY_", b"NUMEXPR_")),
    "torch": Vetted(
        _renew_torch,
        _may_torch_end,
        # The first writes the directory of its archive when it is destroyed; the second removes its file.
        noisy=("torch.PyTorchFileWriter", "torch._C._distributed_c10d.FileStore"),
        # torch 2.13. Left out, as they count their readers: rebuild_cuda_tensor, rebuild_storage_filename.
        rebuilding={
            "torch.multiprocessing.reductions": frozenset({
                "rebuild_event",
                "rebuild_meta_tensor",
                "rebuild_nested_tensor",
                "rebuild_sparse_compressed_tensor",
                "rebuild_sparse_coo_tensor",
                "rebuild_storage_empty",
                "rebuild_storage_fd",
                "rebuild_tensor",
                "rebuild_typed_storage",
                "rebuild_typed_storage_child",
            })
        },
        read_at_import=(
            *_OF_MATHS, b"TORCH", b"PYTORCH_", b"ATEN_", b"DNNL_", b"ONEDNN_", b"CUDA_", b"NCCL_", b"GLOO_", b"HIP_",
            b"ROCR_",
        ),
    ),
}  # fmt: skip
# The prefixes of all libraries, imported or not.
READ_AT_IMPORT = tuple(name for vetted in VETTED.values() for name in vetted.read_at_import)


def is_vetted(name: str) -> bool:
    """Return whether a module belongs to a vetted library."""
    return name.partition(".")[0] in VETTED


def rebuilding(module: str) -> frozenset[str] | None:
    """Return a module's functions that rebuild what any number of ranks may read; None if the module isn't known."""
    known = VETTED.get(module.partition(".")[0])
    return None if known is None else known.rebuilding.get(module)


def renew() -> None:
    """Renew, in a clone, the state that must differ between ranks."""
    for vetted in _loaded():
        vetted.renew()


def may_end() -> bool:
    """Return, in a clone, whether it may end without being finalized, as far as the vetted libraries matter."""
    loaded = _loaded()
    noted = not _constructed and all(vetted in _noted for vetted in loaded if vetted.noisy)
    return noted and all(vetted.may_end() for vetted in loaded)


def is_noisy(module: str, name: str) -> bool:
    """Return whether a class is a noisy class of a vetted library."""
    vetted = VETTED.get(module.partition(".")[0])
    return vetted is not None and f"{module}.{name}" in vetted.noisy


def note_constructors() -> None:
    """Note from now on, in a template, when an object of a noisy class is made."""
    for vetted in _loaded():
        _noted.append(vetted)
        for path in vetted.noisy:
            module, _, name = path.rpartition(".")
            kind = getattr(sys.modules.get(module), name, None)
            if kind is not None:
                _note_constructor(kind)


def _note_constructor(kind: type) -> None:
    construct = kind.__init__  # type: ignore[misc]

    @functools.wraps(construct)
    def note(self: object, *args: object, **kwargs: object) -> None:
        _constructed.add(kind)
        construct(self, *args, **kwargs)

    kind.__init__ = note  # type: ignore[misc]


# The libraries whose constructors are noted: the vetted ones that the template has imported.
_noted: list[Vetted] = []
# The noisy classes whose constructors this clone has called.
_constructed: set[type] = set()


def _loaded() -> list[Vetted]:
    return [vetted for name, vetted in VETTED.items() if name in sys.modules]
