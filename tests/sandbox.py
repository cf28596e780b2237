"""A sandbox: system calls that are answered by an errno, for this process and all that it makes from now on.

A seccomp filter, as containers and service managers have it. Imported by programs under test: it imports little.
"""

from __future__ import annotations

import ctypes
import struct

# By their numbers on x86_64. What other architectures lack is left out by `deny`'s callers.
NUMBERS = {
    "poll": 7, "pwrite64": 18, "dup2": 33, "sendto": 44, "recvfrom": 45, "sendmsg": 46, "recvmsg": 47,
    "socketpair": 53, "clone": 56, "vfork": 58, "kill": 62, "ftruncate": 77, "chdir": 80, "rename": 82, "mkdir": 83,
    "umask": 95, "getrusage": 98, "getpgrp": 111, "setsid": 112, "getsid": 124, "rt_sigpending": 127,
    "sigaltstack": 131, "personality": 135, "prctl": 157, "sched_setaffinity": 203, "sched_getaffinity": 204,
    "epoll_wait": 232, "epoll_ctl": 233, "get_mempolicy": 239, "waitid": 247, "keyctl": 250, "ioprio_get": 252,
    "unshare": 272, "set_robust_list": 273, "get_robust_list": 274, "utimensat": 280, "eventfd2": 290,
    "epoll_create1": 291, "dup3": 292, "prlimit64": 302, "sched_getattr": 315, "memfd_create": 319,
    "pidfd_send_signal": 424, "pidfd_open": 434, "clone3": 435, "close_range": 436, "madvise": 28,
}  # fmt: skip

_LOAD, _EQUAL, _ANY_SET, _RETURN = 0x20, 0x15, 0x45, 0x06
_NUMBER, _FIRST_ARGUMENT = 0, 16  # in struct seccomp_data
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _FILTER = 22, 38, 2


def deny(name: str, errno: int, *, only_with: int = 0) -> None:
    """Have a system call answered by an errno.

    Args:
        name: as in `NUMBERS`.
        errno: the answer.
        only_with: bits, one of which is set in the first argument of the calls that are denied; 0: all are.
    """
    refuse = (_RETURN, 0, 0, _ERRNO | errno)
    allow = (_RETURN, 0, 0, _ALLOW)
    code = [(_LOAD, 0, 0, _NUMBER), (_EQUAL, 1, 0, NUMBERS[name]), allow]
    if only_with:
        code += [(_LOAD, 0, 0, _FIRST_ARGUMENT), (_ANY_SET, 1, 0, only_with), allow]
    _install([*code, refuse])


def _install(code: list[tuple[int, int, int, int]]) -> None:
    raw = b"".join(struct.pack("HBBI", *one) for one in code)
    buffer = ctypes.create_string_buffer(raw, len(raw))
    program = struct.pack("H6xQ", len(code), ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in ((_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (_PR_SET_SECCOMP, _FILTER, program, 0, 0)):
        if libc.prctl(*arguments) != 0:
            raise OSError(ctypes.get_errno(), "no filter can be installed")
