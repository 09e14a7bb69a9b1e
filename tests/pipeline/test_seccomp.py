"""The kernel's filter, in processes of their own: it can't be taken off again."""

from __future__ import annotations

import errno
import os
import platform
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import modelyard
from modelyard.pipeline.seccomp import _MACHINES, _filter

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the filter is Linux's")
LIBC = """
import ctypes, errno, os, socket, sys, threading
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

def call(*numbers):
    got = libc.syscall(*map(ctypes.c_long, numbers))
    return got if got >= 0 else errno.errorcode[ctypes.get_errno()]
"""
SOCKET = {"x86_64": 41, "aarch64": 198}[platform.machine()]
IO_URING_SETUP = 425
# One number, two names.
UNSUPPORTED = errno.errorcode[errno.EOPNOTSUPP]


def told(code: str, *, env: dict[str, str] | None = None) -> list[str]:
    """Run code in a process of its own and return the lines that it prints."""
    whole = LIBC + textwrap.dedent(code)
    line = [sys.executable, "-c", whole]
    done = subprocess.run(
        line, capture_output=True, text=True, check=False, env={**os.environ, **(env or {})}, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_no_family_but_that_of_this_machine() -> None:
    assert told(
        f"""
        from modelyard.pipeline.seccomp import close_network
        print(repr(close_network()))
        for family in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK, socket.AF_PACKET, 40):
            print(call({SOCKET}, family, socket.SOCK_STREAM if family != socket.AF_PACKET else socket.SOCK_RAW, 0))
        # The kernel takes the lower half of a register only.
        print(call({SOCKET}, (1 << 32) | socket.AF_INET, socket.SOCK_STREAM, 0))
        """
    ) == ["''", "3", "EACCES", "EACCES", UNSUPPORTED, "EACCES", "EACCES", "EACCES"]


def test_io_uring_has_sockets_too() -> None:
    assert told(
        f"""
        from modelyard.pipeline.seccomp import close_network
        close_network()
        print(call({IO_URING_SETUP}, 8, 0))
        """
    ) == ["ENOSYS"]


def test_threads_that_are_there_already_and_what_they_start_are_held() -> None:
    assert told(
        """
        import subprocess
        from modelyard.pipeline.seccomp import close_network
        go, gone = threading.Event(), []
        code = "import socket; socket.socket()"
        def work():
            go.wait()
            try:
                socket.socket()
            except OSError as error:
                gone.append(errno.errorcode[error.errno])
            gone.append(b"PermissionError" in subprocess.run([sys.executable, "-c", code], capture_output=True).stderr)
        thread = threading.Thread(target=work)
        thread.start()
        close_network()
        go.set()
        thread.join()
        print(gone)
        """
    ) == ["['EACCES', True]"]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="of this processor")
def test_other_ways_into_the_kernel_are_no_way_round() -> None:
    """The numbers of x32, and those of 32 bits by `int 0x80`."""
    (before, after, pid) = told(
        """
        import mmap
        from modelyard.pipeline.seccomp import close_network
        # int32(number, a, b, c): push rbx; mov eax, edi; mov ebx, esi; mov ecx, edx; xor edx, edx; int 0x80; ...
        code = bytes.fromhex("53 89f8 89f3 89d1 31d2 cd80 5b c3")
        page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write(code)
        int32 = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_int] * 3)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
        inside = os.fork()
        if inside == 0:
            int32(20, 0, 0)  # a kernel without these calls kills us here
            os._exit(0)
        there = os.waitstatus_to_exitcode(os.waitpid(inside, 0)[1]) == 0
        print(int32(359, socket.AF_INET, socket.SOCK_STREAM) > 0 if there else "none")
        close_network()
        answers = [call(0x40000000 | 41, socket.AF_INET, socket.SOCK_STREAM, 0)]
        if there:
            answers += [int32(359, socket.AF_INET, socket.SOCK_STREAM), int32(102, 1, 0), int32(359, 1, 1) > 0]
        print(answers)
        print(int32(20, 0, 0) == os.getpid() if there else "none")
        """
    )
    if before == "none":
        assert after == "['ENOSYS']"
    else:
        assert (before, after, pid) == ("True", "['ENOSYS', -13, -13, True]", "True"), "all else goes on in 32 bits"


def answer(machine: str, architecture: int, number: int, first: int) -> str:
    """Do what the kernel does with the filter of a machine that this need not be: see linux/filter.h."""
    seen = {0: number, 4: architecture, 16: first & 0xFFFFFFFF}
    program, at, word = _filter(_MACHINES[machine]), 0, 0
    while True:
        line = program[at]
        at += 1
        if line.code == 0x20:
            word = seen[line.value]
        elif line.code == 0x06:
            return "allowed" if line.value == 0x7FFF0000 else errno.errorcode[line.value & 0xFFFF]
        else:
            holds = word == line.value if line.code == 0x15 else word >= line.value
            at += line.yes if holds else line.no


@pytest.mark.parametrize(
    ("machine", "own", "numbers", "small", "small_numbers"),
    [
        ("x86_64", 0xC000003E, {"socket": 41, "read": 0}, 0x40000003, {"socket": 359, "calls": 102, "read": 3}),
        ("aarch64", 0xC00000B7, {"socket": 198, "read": 63}, 0x40000028, {"socket": 281, "calls": 102, "read": 3}),
    ],
)
def test_the_filter_of_each_kind_of_machine(
    machine: str, own: int, numbers: dict[str, int], small: int, small_numbers: dict[str, int]
) -> None:
    for architecture, known in ((own, numbers), (small, small_numbers)):
        for family, said in ((1, "allowed"), (2, "EACCES"), (10, "EACCES"), (16, "EOPNOTSUPP"), (0, "EACCES")):
            assert answer(machine, architecture, known["socket"], family) == said.replace("EOPNOTSUPP", UNSUPPORTED)
        assert answer(machine, architecture, known["socket"], 1 << 32 | 2) == "EACCES"
        assert answer(machine, architecture, known["read"], 2) == "allowed"
        assert answer(machine, architecture, 425, 8) == "ENOSYS"
    assert answer(machine, small, small_numbers["calls"], 1) == "EACCES"
    assert answer(machine, 0x1234, numbers["read"], 0) == "ENOSYS"
    assert answer(machine, own, 0x40000000 | numbers["read"], 0) == "ENOSYS"


STEPS = """
import socket

def ask() -> str:
    import ctypes
    return "open" if ctypes.CDLL(None).socket(2, 1, 0) > 0 else "closed"

def ask_again() -> str:
    return ask()

def reach() -> str:
    socket.create_connection(("127.0.0.1", 9))
"""
# As on a kernel, or in a container, that lets nobody make a filter: it says so of the call that makes one.
REFUSING = """
import ctypes, struct, sys
libc = ctypes.CDLL(None)
seccomp = {"x86_64": 317, "aarch64": 277}[MACHINE]
rules = [(0x20, 0, 0, 0), (0x15, 0, 1, seccomp), (6, 0, 0, 0x00050000 | 1), (6, 0, 0, 0x7FFF0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *rule) for rule in rules))
program = struct.pack("=H6xQ", len(rules), ctypes.addressof(code))
libc.prctl(38, 1, 0, 0, 0)
assert libc.prctl(22, 2, program, 0, 0) == 0
import modelyard
run = modelyard.run(observe=lambda event: print(event.kind, event.payload.get("notes"), flush=True))
print(run["one"])
""".replace("MACHINE", repr(platform.machine()))


def test_where_there_is_no_filter_it_is_said_and_python_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "steps.py").write_text(STEPS)
    file = "project: p\nsteps:\n  one: {function: steps.py:ask, resources: {own_process: true}}\n"
    (tmp_path / "modelyard.yaml").write_text(file)
    assert modelyard.run()["one"] == "closed"
    (tmp_path / "modelyard.yaml").write_text(file.replace("ask", "ask_again"))
    lines = told(REFUSING)
    assert lines[-1] == "open"
    (finished,) = [line for line in lines if line.startswith("step.finished")]
    assert finished.count("only Python's own sockets are closed to it") == 1
    (tmp_path / "modelyard.yaml").write_text(file.replace("ask", "reach, retries: 0"))
    with pytest.raises(AssertionError, match="step-network"):
        told(REFUSING)
