"""Take the network from a whole process and all that it starts: a filter in the kernel, which nothing takes off again.

A program of the classic packet filter looks at each system call before it is done (seccomp(2), Linux 3.17): `socket`
is refused for every family but that of this machine (AF_UNIX). It needs no privilege, works in containers, and costs
20 to 40 ns a system call. What is open already stays open.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import socket
import sys
from dataclasses import dataclass

__all__ = ["close_network"]

# linux/prctl.h, linux/seccomp.h
_PR_SET_NO_NEW_PRIVS = 38
_SET_MODE_FILTER = 1
# All threads of the process; and no slower branches for what it computes, which older kernels (before 5.16) tie to it.
_TSYNC, _SPEC_ALLOW = 1, 4
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
# linux/bpf_common.h: load a word of what is looked at; go on where it is equal, or at least so much; answer.
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
# Places in `struct seccomp_data`; of the first argument the half that the kernel takes (little endian).
_NUMBER, _ARCHITECTURE, _FIRST = 0, 4, 16
# The same on every processor.
_IO_URING_SETUP = 425
_X32 = 0x40000000


@dataclass(frozen=True, slots=True)
class _Machine:
    """Numbers of a kind of processor: of its own calls, and of those of its 32-bit programs.

    Attributes:
        architecture: As `linux/audit.h` names it.
        seccomp: The call that sets a filter.
        socket: The call that makes a socket.
        small: Architecture of 32 bits.
        small_socket: Its call that makes a socket.
        small_calls: Its older call for all about sockets; its arguments stand where a filter cannot look.
    """

    architecture: int
    seccomp: int
    socket: int
    small: int
    small_socket: int
    small_calls: int = 102


_MACHINES = {
    "x86_64": _Machine(0xC000003E, seccomp=317, socket=41, small=0x40000003, small_socket=359),
    "aarch64": _Machine(0xC00000B7, seccomp=277, socket=198, small=0x40000028, small_socket=281),
}


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint16), ("yes", ctypes.c_uint8), ("no", ctypes.c_uint8), ("value", ctypes.c_uint32))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(_Instruction)))


def close_network() -> str:
    """Close the network to this process, its threads and all that they start, for good.

    They get no new privileges either (`sudo` and other set-user-id programs run as who started them): the kernel asks
    that of who filters without being root.

    Returns:
        Nothing, or why it could not be done: another system, or one that does not allow it.
    """
    machine = _MACHINES.get(platform.machine())
    if sys.platform != "linux" or machine is None or sys.byteorder != "little":
        return f"no filter for {platform.system()} on {platform.machine()}"
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        return os.strerror(ctypes.get_errno())
    instructions = _filter(machine)
    program = _Program(len(instructions), (_Instruction * len(instructions))(*instructions))
    why = 0
    for flags in (_TSYNC | _SPEC_ALLOW, _TSYNC):
        words = (ctypes.c_long(n) for n in (machine.seccomp, _SET_MODE_FILTER, flags))
        got = libc.syscall(*words, ctypes.byref(program))
        if got == 0:
            return ""
        why = ctypes.get_errno() if got < 0 else errno.ESRCH  # above 0: a thread that has a filter of its own
        if why != errno.EINVAL:
            break
    return os.strerror(why)


def _filter(machine: _Machine) -> list[_Instruction]:
    """Return the program: what is looked at, and where it goes on; an empty place is the next line."""
    lines: list[tuple[str, int, int, str, str]] = [
        ("", _LOAD, _ARCHITECTURE, "", ""),
        ("", _EQUAL, machine.architecture, "own", ""),
        ("", _EQUAL, machine.small, "", "absent"),
        # Calls of 32-bit programs.
        ("", _LOAD, _NUMBER, "", ""),
        ("", _EQUAL, machine.small_calls, "refused", ""),
        ("", _EQUAL, machine.small_socket, "family", ""),
        ("", _EQUAL, _IO_URING_SETUP, "absent", "allowed"),
        ("own", _LOAD, _NUMBER, "", ""),
        # Those of x32 are others by the same numbers; on other processors none is so large.
        ("", _AT_LEAST, _X32, "absent", ""),
        ("", _EQUAL, machine.socket, "family", ""),
        # Its sockets are made past any filter.
        ("", _EQUAL, _IO_URING_SETUP, "absent", "allowed"),
        ("family", _LOAD, _FIRST, "", ""),
        ("", _EQUAL, int(socket.AF_UNIX), "allowed", ""),
        # What lists the interfaces: ZeroMQ, and with it the kernel of a notebook, ends at any other answer than this.
        ("", _EQUAL, int(socket.AF_NETLINK), "unsupported", "refused"),
        ("allowed", _RETURN, _ALLOW, "", ""),
        ("refused", _RETURN, _ERRNO | errno.EACCES, "", ""),
        ("unsupported", _RETURN, _ERRNO | errno.EOPNOTSUPP, "", ""),
        ("absent", _RETURN, _ERRNO | errno.ENOSYS, "", ""),
    ]
    places = {label: number for number, (label, *_) in enumerate(lines) if label}

    def away(label: str, number: int) -> int:
        return places[label] - number - 1 if label else 0

    return [
        _Instruction(code, away(yes, number), away(no, number), value)
        for number, (_, code, value, yes, no) in enumerate(lines)
    ]
