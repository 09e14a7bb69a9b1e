"""A step has no network unless it says so: Python's sockets are refused to it, and it is said who wanted what.

From the first step on, the module `socket` asks for which step a thread works before it makes a socket or looks up a
name; the other threads of the process keep their network. Native code and child processes do not ask it: where a step
has a process of its own, the kernel holds those as well (`seccomp.py`). An audit hook would be asked by all that Python
audits, and slow that down for good (docs/decisions/024).
"""

from __future__ import annotations

import _socket
import re
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from errno import EACCES
from functools import wraps
from types import FrameType
from typing import Any

from modelyard._kit.errors import Denied
from modelyard._kit.usercode import is_own
from modelyard.records import Step

__all__ = ["ASK", "NetworkOff", "Within", "close_here", "has_network", "hint_for"]

# What a step of the file says to have one.
ASK = "network: true"
# The functions that look up a name. Python's `socket.getaddrinfo` calls that of `_socket`.
_LOOK_UP = ("getaddrinfo", "gethostbyaddr", "gethostbyname", "gethostbyname_ex", "getnameinfo")
# On a thread that a step has started.
_MARK = "_modelyard_attempt"
# How it sounds when it was the kernel that refused, in the words of libc, Rust's and curl's.
_SOUNDS_LIKE_IT = re.compile(
    r"permission denied|errno 13\b|os error 13\b|name resolution|name or service not known|could not resolve"
    r"|error sending request|client error \(connect\)|failed to connect|connection is bad|cannot be reached"
    r"|unreachable",
    re.IGNORECASE,
)


class NetworkOff(Denied, PermissionError):
    """A step wanted the network and has none.

    It is an `OSError` (`EACCES`) as well: a library that only tries whether there is a network goes on without one.
    """

    def __init__(self, code: str, message: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(code, message, where=where, hint=hint)
        # What the constructor of `OSError` made of our four texts.
        self.errno, self.strerror, self.filename = EACCES, message, None
        self.args = (EACCES, message)

    def __reduce__(self) -> tuple[object, ...]:
        p = self.problem
        return _again, (p.code, p.message, p.where, p.hint)


def _again(code: str, message: str, where: str, hint: str) -> NetworkOff:
    return NetworkOff(code, message, where=where, hint=hint)


class Within:
    """One attempt at a step in this process: a context.

    It holds what this thread does inside, and the threads that it starts, to what the step says of the network.

    Args:
        step: The step.
        loading: What it is made of is loaded, and nothing called yet. Libraries make a socket then to see whether there
            is IPv6, and remember for all steps of this process what they saw: that much is allowed, names are not.

    Attributes:
        step: See above.
        loading: See above.
        over: It has ended; threads that it started may still be there.
        refused: What it was refused last.

    Raises:
        NetworkOff: An error that leaves the context followed from a refusal; libraries wrap what they meet.
    """

    __slots__ = ("_before", "_counts", "_handled", "loading", "over", "refused", "step")

    def __init__(self, step: Step, *, loading: bool = False) -> None:
        self.step = step
        self.loading = loading
        self.over = False
        self.refused: NetworkOff | None = None

    def __enter__(self) -> None:
        if not _asking:
            # Who comes second waits until all of it asks.
            with _beginning:
                if not _asking:
                    _ask()
        self._before = _thread.attempt
        # Whatever is raised inside has it for a context, and did not follow from it.
        self._handled = sys.exc_info()[1]
        self._counts = _is_open()
        if self._counts:
            _thread.attempt = self
            _under_way.append(self)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.over = True
        if self._counts:
            _thread.attempt = self._before
            _under_way.remove(self)
        if isinstance(error, Exception) and (refusal := _refusal_in(error, self)) is not None:
            raise refusal from error


class _Thread(threading.local):
    attempt: Within | None = None


_thread = _Thread()
_under_way: list[Within] = []
_asking = False
_beginning = threading.Lock()
_closed = False


def close_here() -> str:
    """Close the network to this whole process, native code and child processes with it, for good.

    Returns:
        Nothing, or why the kernel does not hold them: then only Python's own sockets are closed, `Within` a step.
    """
    from modelyard.pipeline.seccomp import close_network

    global _closed
    why = close_network()
    _closed = not why
    return why


def has_network(step: Step) -> bool:
    """Say whether a step may use the network here: if another step runs its project, no more than that one."""
    return step.resources.network and _is_open()


def _is_open() -> bool:
    outer = _attempt()
    return outer is None or outer.step.resources.network


def _attempt() -> Within | None:
    """Return the attempt that this thread works for, if it does."""
    if (found := _thread.attempt) is not None:
        return found
    thread = threading.current_thread()
    found = getattr(thread, _MARK, None)
    newest = _under_way[-1:]
    if found is None:
        # One that Python did not start is of a native library (Polars), and works for whoever works now.
        return newest[0] if newest and isinstance(thread, threading._DummyThread) else None
    # Libraries keep threads for all who come (fsspec, pools of a module): who asks counts, not who came first. What
    # goes on when nobody is at work is held as the step was that has left it behind.
    return newest[0] if newest and found.over else found


def _ask() -> None:
    """Have threads and sockets of this process ask from now on."""
    global _asking
    threading.Thread.start = _marking(threading.Thread.start)  # type: ignore[assignment, method-assign]
    socket.socket.__init__ = _making(socket.socket.__init__)  # type: ignore[method-assign]
    for name in _LOOK_UP:
        looking = _looking(getattr(_socket, name))
        setattr(_socket, name, looking)
        if name != "getaddrinfo":
            setattr(socket, name, looking)
    _asking = True


def _marking(start: Callable[[threading.Thread], None]) -> Callable[[threading.Thread], None]:
    @wraps(start)
    def marked(self: threading.Thread) -> None:
        if (attempt := _attempt()) is not None:
            setattr(self, _MARK, attempt)
        start(self)

    return marked


def _making(init: Callable[..., None]) -> Callable[..., None]:
    @wraps(init)
    def made(self: Any, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None) -> None:  # noqa: A002
        # What is open already is nothing new, whoever opened it.
        if fileno is None and family != getattr(socket, "AF_UNIX", None):
            _refuse("a network socket", loading=False)
        init(self, family, type, proto, fileno)

    return made


def _looking(find: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(find)
    def looked(*args: Any, **named: Any) -> Any:
        _refuse(f"to reach `{_shown(args)}`")
        return find(*args, **named)

    return looked


def _refuse(wanted: str, *, loading: bool = True) -> None:
    """Raise if this thread works for a step without a network; `loading`: also for one that is being loaded."""
    attempt = _attempt()
    if attempt is None or attempt.step.resources.network or (attempt.loading and not loading):
        return
    step = attempt.step
    attempt.refused = NetworkOff(
        "step-network",
        f"step `{step.name}` wanted {wanted}, and it has no network",
        where=_place(frame for frame, _ in traceback.walk_stack(sys._getframe(1))),
        hint=f"if it has to, {_allow(step)}",
    )
    raise attempt.refused


def _shown(args: tuple[Any, ...]) -> str:
    """Return the address that is looked up, as people write it: a name, a name and a port, or a pair of both."""
    host, port = (*args, None, None)[:2]
    if isinstance(host, tuple):
        return _shown(host)
    name = "localhost" if host is None else _text(host)
    return f"{name}:{_text(port)}" if port else name


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _place(frames: Iterator[FrameType]) -> str:
    """Return the first place in code of the user's."""
    return next((f"{f.f_code.co_filename}:{f.f_lineno}" for f in frames if is_own(f.f_code.co_filename)), "")


def _allow(step: Step) -> str:
    """Say how a step gets the network."""
    if step.resources.network:
        return f"give the step that runs this project `{ASK}` as well"
    if step.verb.startswith("modelyard.") and step.verb != "modelyard.pipeline.notebooks:execute_notebook":
        return f"fetch what it wants in a step of your own with `resources: {{{ASK}}}`, and take that one's output"
    return f"give it `{ASK}` under `resources` (in Python: `network=True`)"


def hint_for(step: Step, error: BaseException) -> str:
    """Say how a step gets the network, where an error sounds as if the kernel had refused that; else nothing."""
    # An error that names a file is about that file.
    if not _closed or (isinstance(error, OSError) and error.filename is not None):
        return ""
    if type(error).__name__ == "CalledProcessError":
        return f"if what it started wanted the network, {_allow(step)}"
    return f"if it wanted the network, {_allow(step)}" if _SOUNDS_LIKE_IT.search(str(error)) else ""


def _refusal_in(error: BaseException, attempt: Within) -> NetworkOff | None:
    """Return the refusal that an error followed from, with what came of it; none if it has to do with none."""
    seen: list[BaseException] = [error]
    last, before = attempt.refused, attempt._handled
    for one in seen:
        if isinstance(one, NetworkOff):
            return _completed(one, error)
        # One that came from another process has lost what it followed from; what it was made with came along.
        more = [one.__cause__, one.__context__, *one.args]
        more += one.exceptions if isinstance(one, BaseExceptionGroup) else ()
        seen += [m for m in more if isinstance(m, BaseException) and all(m is not known for known in (before, *seen))]
    # Polars makes an error of its own of the text of another.
    return _completed(last, error) if last is not None and f"[{last.code}]" in str(error) else None


def _completed(refusal: NetworkOff, error: BaseException) -> NetworkOff:
    """Return a refusal with a place in the user's code, and with the error that it ended in."""
    p, text = refusal.problem, str(error)
    # In a thread of a library there may be no frame of the user's; where the error was raised again there is.
    where = p.where or _place(frame for frame, _ in [*traceback.walk_tb(error.__traceback__)][::-1])
    after = "" if f"[{p.code}]" in text else f"; after that it raised {type(error).__name__}: {text}"
    return NetworkOff(p.code, f"{p.message}{after}", where=where, hint=p.hint)
