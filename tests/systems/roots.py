"""Systems in folders: made once by debootstrap, entered for each command."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple

from tests.systems.catalogue import COPIED, COPIES, System

ENTER = Path(__file__).parent / "enter.sh"
# Both namespaces end with the command: what it left running is killed, what it mounted is gone. The command
# ends with us, also when we are killed.
NAMESPACES = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child"]
TOOLS = ("setpriv", "unshare", "mount", "umount", "pivot_root")
# What pip, apt and debootstrap are told of networks by; the certificates that this machine trusts, and its resolver.
HANDED_OVER = (
    "PIP_",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
)
BOUND = ("/etc/resolv.conf", "/etc/hosts")
CERTIFICATES = "/etc/ssl/certs"
# Where a system has the folder that is worked in; `ENTER` has it, too.
INSIDE = "/srv/spawnx"


class FailedError(Exception):
    """A command has failed; the text says which, and where its output is."""


class Network(NamedTuple):
    """Where packages come from.

    Attributes:
        mirror: of Debian; "" is debootstrap's default.
        apt_options: as of apt's `-o`.
        bound: what the systems have of this one, besides the certificates.
    """

    mirror: str = ""
    apt_options: tuple[str, ...] = ()
    bound: tuple[str, ...] = ()


def what_is_missing(to_make: bool) -> str | None:
    """What this machine lacks for it, or None; `to_make`: systems must be made, too."""
    if os.geteuid() != 0:
        return "it mounts and changes roots, so it must run as root: sudo, or a virtual machine of your own"
    wanted = (*TOOLS, *(("debootstrap",) if to_make else ()))
    missing = [name for name in wanted if shutil.which(name) is None]
    if missing:
        return f"there is no {' and no '.join(missing)}; Debian has them in util-linux, mount and debootstrap"
    tried = subprocess.run(
        [*NAMESPACES, "mount", "-t", "proc", "proc", "/proc"], capture_output=True, text=True, check=False
    )
    return f"this container or sandbox forbids mounts: {tried.stderr.strip()}" if tried.returncode else None


class Root(NamedTuple):
    """A system in a folder."""

    system: System
    folder: Path
    network: Network

    @property
    def place(self) -> Path:
        """The root itself."""
        return self.folder / self.system.suite

    @property
    def _stamp(self) -> Path:
        return self.folder / f"{self.system.suite}.packages"

    def is_made(self) -> bool:
        """Whether debootstrap has come to its end here."""
        return self.place.is_dir()

    def command(self, command: Sequence[str], work: Path, certificates: str = CERTIFICATES) -> list[str]:
        """What runs a command in it, with the folder `work` as `INSIDE`."""
        bound = [path for path in (*BOUND, certificates, *self.network.bound) if path and Path(path).exists()]
        return [*NAMESPACES, "sh", str(ENTER), str(self.place), str(work), *bound, "--", *command]

    def make(self, log: IO[str]) -> None:
        """Have debootstrap make it. What it has not finished is removed."""
        unfinished = self.folder / f"{self.system.suite}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        mirror = [self.network.mirror] if self.network.mirror else []
        command = ["debootstrap", "--variant=minbase", self.system.suite, str(unfinished), *mirror]
        try:
            run([*NAMESPACES, "--mount-proc", *command], log)
            unfinished.rename(self.place)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def install(self, log: IO[str], *, again: bool = False) -> None:
        """Install its packages, if it hasn't them; `again`: as they are in the archive today."""
        wanted = "\n".join(self.system.packages)
        if not again and self._stamp.is_file() and self._stamp.read_text(encoding="utf-8") == wanted:
            return
        apt = ["apt-get", *(part for option in self.network.apt_options for part in ("-o", option))]
        flags = ["--yes", "--quiet", "--no-install-recommends"]
        for step in (["update"], ["install", *flags, *self.system.packages], ["clean"]):
            # Without our certificates, which would stand in the way of the package that writes its own.
            command = self.command([*apt, *step], self.folder, certificates="")
            run(command, log, environment(DEBIAN_FRONTEND="noninteractive"))
        self._stamp.write_text(wanted, encoding="utf-8")

    def copy_pythons(self, source: Root) -> None:
        """Give it sid's Pythons. With their times: what they have compiled would be stale without."""
        target = Path(f"{self.place}{COPIES}", "usr")
        shutil.rmtree(target, ignore_errors=True)
        for version in COPIED:
            for part in (f"bin/python{version}", f"lib/python{version}"):
                (target / part).parent.mkdir(parents=True, exist_ok=True)
                subprocess.run(["cp", "-a", source.place / "usr" / part, target / part], check=True)
        # Debian's ensurepip has its pip from here: an older one does not run on a newer Python.
        wheels = self.place / "usr/share/python-wheels"
        shutil.rmtree(wheels)
        shutil.copytree(source.place / "usr/share/python-wheels", wheels)


def environment(**more: str) -> dict[str, str]:
    """What commands in a system have of our environment, and more."""
    kept = {name: value for name, value in os.environ.items() if name.startswith(HANDED_OVER)}
    return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8", **kept, **more}


def run(
    command: Sequence[str], log: IO[str], env: dict[str, str] | None = None, timeout: float | None = None
) -> None:
    """Run a command with its output in a log.

    Raises:
        FailedError: its exit status is not 0, or it took longer than `timeout` seconds.
    """
    log.write(f"$ {' '.join(map(str, command))}\n")
    log.flush()
    where = f"see {log.name}"
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=env
    ) as process:
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise FailedError(f"ran past {timeout:.0f} s; {where}") from None
        finally:
            # `unshare`: all in its namespaces ends with it.
            with contextlib.suppress(ProcessLookupError):
                process.kill()
    if code:
        raise FailedError(f"`{_brief(command)}` ended with exit code {code}; {where}")


def _brief(command: Sequence[str]) -> str:
    """What was run, without the way into the system."""
    words = list(command)
    return " ".join(words[words.index("--") + 1 :] if "--" in words else words)[:100]
