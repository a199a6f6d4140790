"""What runs inside the process of `sandbox.py`: walls first, then the program. Only the standard library.

Walls, each where the system has it: limits (setrlimit), no capabilities, an empty network namespace, nothing
to read or write outside the folder and Python's own files (Landlock), no system calls for processes, networks
or signals (seccomp), and everywhere an audit hook that refuses the same from Python.
"""

import ctypes
import json
import math
import os
import platform
import resource
import signal
import struct
import sys
import traceback
from collections.abc import Callable

SYSCALLS = {  # by machine: its name for seccomp, and what is refused
    "x86_64": (
        0xC000003E,
        # socket socketpair clone fork vfork execve kill ptrace chroot mount umount2 setrlimit tkill tgkill
        # unshare open_by_handle_at setns process_vm_writev prlimit64 bpf execveat pidfd_send_signal
        # io_uring_setup pidfd_open clone3
        (41, 53, 56, 57, 58, 59, 62, 101, 161, 165, 166, 160, 200, 234,
         272, 304, 308, 311, 302, 321, 322, 424, 425, 434, 435),
    ),
    "aarch64": (
        0xC00000B7,
        # umount2 mount chroot unshare ptrace kill tkill tgkill setrlimit socket socketpair clone execve
        # prlimit64 open_by_handle_at setns process_vm_writev bpf execveat pidfd_send_signal io_uring_setup
        # pidfd_open clone3
        (39, 40, 51, 97, 117, 129, 130, 131, 164, 198, 199, 220, 221,
         261, 265, 268, 271, 280, 281, 424, 425, 434, 435),
    ),
}  # fmt: skip
NO_NEW_PRIVS, SET_SECCOMP, FILTER, NEW_USER, NEW_NET = 38, 22, 2, 0x10000000, 0x40000000
READS = ("/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/local/lib", "/usr/share/zoneinfo",
         "/etc/ld.so.cache", "/etc/localtime", "/dev/null", "/dev/urandom", "/dev/zero")  # fmt: skip
REFUSED = ("socket.", "subprocess.", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.system",
           "os.kill", "os.killpg", "os.forkpty", "pty.", "ctypes.", "signal.pthread_kill", "ftplib.",
           "smtplib.", "urllib.", "http.client.", "webbrowser.", "syslog.",
           "resource.setrlimit", "resource.prlimit")  # fmt: skip
CHANGES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.chmod", "os.chown", "os.link", "os.symlink",
           "os.truncate", "os.utime", "os.setxattr", "shutil.")  # fmt: skip


def main() -> None:
    """Read what is asked from standard input, put the walls up, run the program, report how it ended."""
    asked = json.load(sys.stdin)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    report, folder = asked["report"], os.path.realpath(asked["folder"])
    walls = [*limits(asked), *privileges(), *files(folder), *calls()]
    sys.addaudithook(hook(folder))
    tell(report, {"walls": [*walls, "audit hook"]})
    signal.setitimer(signal.ITIMER_REAL, 2 * asked["seconds"])  # ends the process unless the program objects
    found = outcome(asked["program"])
    tell(report, {**found, "nonce": asked["nonce"]})


def tell(report: int, said: dict[str, object]) -> None:
    """Report a line of JSON."""
    os.write(report, json.dumps(said).encode() + b"\n")


def outcome(program: str) -> dict[str, object]:
    """How the program ended."""
    try:
        code = compile(program, "<program>", "exec")
    except (SyntaxError, ValueError) as error:
        return {"reason": "syntax error", "detail": f"{type(error).__name__}: {error}"[:300]}
    except (MemoryError, RecursionError) as error:
        return {"reason": "failed", "detail": type(error).__name__}
    sys.setrecursionlimit(2000)
    try:
        exec(code, {"__name__": "__main__", "__builtins__": __builtins__})
    except MemoryError:
        return {"reason": "memory", "detail": "MemoryError"}
    except (Exception, SystemExit) as error:  # leaving early is no success
        lines = [
            frame.lineno
            for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename == "<program>"
        ]
        said = "".join(traceback.format_exception_only(error)).strip()
        return {"reason": "failed", "detail": f"{said[:300]} (line {lines[-1] if lines else '?'})"}
    return {"reason": "passed"}


def limits(asked: dict[str, float]) -> list[str]:
    """Of processor time, memory, sizes of files, open files and processes."""
    cpu = math.ceil(asked["seconds"]) + 1
    wanted = {
        "RLIMIT_CPU": (cpu, cpu + 1),
        "RLIMIT_FSIZE": (int(asked["file_mib"]) << 20,) * 2,
        "RLIMIT_NOFILE": (64, 64),
        "RLIMIT_CORE": (0, 0),
        "RLIMIT_NPROC": (0, 0),  # of root's processes the kernel counts none: seccomp refuses them
        "RLIMIT_AS": (int(asked["memory_mib"]) << 20,) * 2,
    }
    held = []
    for name, values in wanted.items():
        try:
            resource.setrlimit(getattr(resource, name), values)
            held.append(name.removeprefix("RLIMIT_").lower())
        except (AttributeError, ValueError, OSError):
            continue
    return [f"limits ({', '.join(held)})"]


def privileges() -> list[str]:
    """No new ones, a network of its own with nobody in it, and none of root's powers."""
    if sys.platform != "linux":
        return []
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0)
    held = []
    if libc.unshare(NEW_NET) == 0 or libc.unshare(NEW_USER | NEW_NET) == 0:
        held.append("network namespace")
    header, none = struct.pack("Ii", 0x20080522, 0), bytes(24)
    if libc.syscall(126 if platform.machine() == "x86_64" else 91, header, none) == 0:
        held.append("no capabilities")
    return held


def files(folder: str) -> list[str]:
    """Landlock: all of the folder, Python's own files to read, nothing else."""
    if sys.platform != "linux":
        return []
    libc = ctypes.CDLL(None, use_errno=True)
    abi = libc.syscall(444, None, 0, 1)
    if abi < 1:
        return []
    every = (1 << (13 + (abi >= 2) + (abi >= 3) + (abi >= 5))) - 1  # kinds of access that this version knows
    handled = struct.pack("QQQ", every, 3 if abi >= 4 else 0, 3 if abi >= 6 else 0)
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    rules = libc.syscall(444, handled, size, 0)
    if rules < 0:
        return []
    read, read_file = 0b1101, 0b101
    places = [(folder, every & ~(1 << 6 | 1 << 9 | 1 << 11))]  # no devices, no sockets
    places += [(path, read) for path in {sys.prefix, sys.base_prefix, sys.exec_prefix, *READS}]
    for path, rights in places:
        if not os.path.exists(path):
            continue
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
        kept = rights if os.path.isdir(path) else rights & (read_file | (2 if path == "/dev/null" else 0))
        if path == "/dev/null":
            kept |= 2
        if libc.syscall(445, rules, 1, struct.pack("=Qi", kept, handle), 0) != 0:
            return []
        os.close(handle)
    return ["Landlock"] if libc.syscall(446, rules, 0) == 0 else []


def calls() -> list[str]:
    """A filter of system calls: those of SYSCALLS fail with EPERM."""
    known = SYSCALLS.get(platform.machine())
    if sys.platform != "linux" or known is None:
        return []
    arch, refused = known
    kill, deny, allow = 0x80000000, 0x00050001, 0x7FFF0000
    load, equal, above, give = 0x20, 0x15, 0x35, 0x06
    steps = [(load, 0, 0, 4), (equal, 1, 0, arch), (give, 0, 0, kill), (load, 0, 0, 0)]
    steps += [(above, 0, 1, 0x40000000), (give, 0, 0, deny)]  # the other numbering of x86, x32
    for number in refused:
        steps += [(equal, 0, 1, number), (give, 0, 0, deny)]
    steps.append((give, 0, 0, allow))
    code = b"".join(struct.pack("HBBI", *step) for step in steps)
    buffer = ctypes.create_string_buffer(code)
    program = struct.pack("HxxxxxxQ", len(steps), ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    return ["seccomp"] if libc.prctl(SET_SECCOMP, FILTER, program, 0, 0) == 0 else []


def hook(folder: str) -> Callable[[str, tuple[object, ...]], None]:
    """An audit hook that refuses processes, networks, and changes outside the folder."""
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

    def within(path: object) -> bool:
        if isinstance(path, int):
            return True
        whole = os.path.realpath(os.fsdecode(str(path) if not isinstance(path, bytes) else path))
        return whole == folder or whole.startswith(folder + os.sep) or whole == os.devnull

    def look(event: str, given: tuple[object, ...]) -> None:
        if event == "open":
            path, _, flags = given
            if path is not None and isinstance(flags, int) and flags & writing and not within(path):
                raise PermissionError(f"writing outside the folder is refused here: {path!r}")
        elif event.startswith(REFUSED):
            raise PermissionError(f"{event} is refused here")
        elif event.startswith(CHANGES):
            for path in given:
                if isinstance(path, str | bytes) and not within(path):
                    raise PermissionError(f"{event} outside the folder is refused here: {path!r}")

    return look


if __name__ == "__main__":
    main()
