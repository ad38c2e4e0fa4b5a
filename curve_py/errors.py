"""One family of exceptions for the whole library: a kind for programs, a sentence and a remedy for
people.

Must not know gRPC nor native code: curve_py.service.rpc and curve_py.client translate. Any thread.
"""

from __future__ import annotations

from enum import StrEnum


class ErrorKind(StrEnum):
    """Stable names; `curve --json` prints them."""

    NOT_LEADER = "not_leader"
    UNAVAILABLE = "unavailable"
    BUSY = "busy"
    NOT_FOUND = "not_found"
    EXISTS = "exists"
    INVALID = "invalid"
    CONFLICT = "conflict"
    FENCED = "fenced"
    NO_PLACEMENT = "no_placement"
    UNAUTHENTICATED = "unauthenticated"
    TIMEOUT = "timeout"
    UNSUPPORTED = "unsupported"
    INTERNAL = "internal"
    # Of the data path and of local work:
    NO_SPACE = "no_space"
    READ_ONLY = "read_only"
    IO = "io"
    CORRUPT = "corrupt"
    LOCKED = "locked"
    CLOSED = "closed"


class CurveError(Exception):
    """What failed, in one sentence, and what to do about it."""

    kind: ErrorKind = ErrorKind.INTERNAL

    def __init__(self, message: str, remedy: str = "", *, kind: ErrorKind | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        if kind is not None:
            self.kind = kind

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()


class NotLeaderError(CurveError):
    """Another metaserver leads; `leader_address` says which, when known."""

    kind = ErrorKind.NOT_LEADER

    def __init__(self, message: str, remedy: str = "", *, leader_address: str = "") -> None:
        super().__init__(message, remedy)
        self.leader_address = leader_address


class UnavailableError(CurveError):
    kind = ErrorKind.UNAVAILABLE


class BusyError(CurveError):
    kind = ErrorKind.BUSY


class NotFoundError(CurveError):
    kind = ErrorKind.NOT_FOUND


class ExistsError(CurveError):
    kind = ErrorKind.EXISTS


class InvalidError(CurveError):
    kind = ErrorKind.INVALID


class ConflictError(CurveError):
    kind = ErrorKind.CONFLICT


class FencedError(CurveError):
    """R12: a newer attachment has the volume."""

    kind = ErrorKind.FENCED


class NoPlacementError(CurveError):
    kind = ErrorKind.NO_PLACEMENT


class UnauthenticatedError(CurveError):
    kind = ErrorKind.UNAUTHENTICATED


class CurveTimeoutError(CurveError):
    kind = ErrorKind.TIMEOUT


class UnsupportedError(CurveError):
    kind = ErrorKind.UNSUPPORTED


class InternalError(CurveError):
    kind = ErrorKind.INTERNAL


class NoSpaceError(CurveError):
    kind = ErrorKind.NO_SPACE


class ReadOnlyError(CurveError):
    kind = ErrorKind.READ_ONLY


class CurveIoError(CurveError):
    kind = ErrorKind.IO


class CorruptError(CurveError):
    kind = ErrorKind.CORRUPT


class LockedError(CurveError):
    kind = ErrorKind.LOCKED


class ClosedError(CurveError):
    kind = ErrorKind.CLOSED


class ConfigError(InvalidError):
    """A configuration that cannot be used; raised before anything is started."""


_CLASSES: tuple[type[CurveError], ...] = (
    NotLeaderError,
    UnavailableError,
    BusyError,
    NotFoundError,
    ExistsError,
    InvalidError,
    ConflictError,
    FencedError,
    NoPlacementError,
    UnauthenticatedError,
    CurveTimeoutError,
    UnsupportedError,
    InternalError,
    NoSpaceError,
    ReadOnlyError,
    CurveIoError,
    CorruptError,
    LockedError,
    ClosedError,
)
_CLASS_OF_KIND = {cls.kind: cls for cls in _CLASSES}


def error_of_kind(kind: ErrorKind, message: str, remedy: str = "") -> CurveError:
    """The exception for `kind`."""
    return _CLASS_OF_KIND[kind](message, remedy)
