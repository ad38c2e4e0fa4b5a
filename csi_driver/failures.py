"""Errors as CSI knows them: a gRPC status and a sentence.

Owns: which status a CurveError becomes (the CSI specification's tables of errors; ABORTED is work
in flight, never INTERNAL). Any thread.
"""

from __future__ import annotations

import grpc

from curve_py.errors import CurveError, ErrorKind

_STATUS = {
    ErrorKind.NOT_LEADER: grpc.StatusCode.UNAVAILABLE,
    ErrorKind.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    ErrorKind.BUSY: grpc.StatusCode.ABORTED,
    ErrorKind.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    ErrorKind.EXISTS: grpc.StatusCode.ALREADY_EXISTS,
    ErrorKind.INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    ErrorKind.CONFLICT: grpc.StatusCode.FAILED_PRECONDITION,
    ErrorKind.FENCED: grpc.StatusCode.FAILED_PRECONDITION,
    ErrorKind.NO_PLACEMENT: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ErrorKind.NO_SPACE: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ErrorKind.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    ErrorKind.TIMEOUT: grpc.StatusCode.DEADLINE_EXCEEDED,
    ErrorKind.UNSUPPORTED: grpc.StatusCode.FAILED_PRECONDITION,
    ErrorKind.READ_ONLY: grpc.StatusCode.FAILED_PRECONDITION,
    ErrorKind.LOCKED: grpc.StatusCode.ABORTED,
}


class CsiError(Exception):
    """Ends a call with this status."""

    def __init__(self, status: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def of_curve_error(error: CurveError) -> CsiError:
    """What the caller of a CSI service is told of it."""
    return CsiError(_STATUS.get(error.kind, grpc.StatusCode.INTERNAL), str(error))


def invalid(message: str) -> CsiError:
    return CsiError(grpc.StatusCode.INVALID_ARGUMENT, message)


def not_found(message: str) -> CsiError:
    return CsiError(grpc.StatusCode.NOT_FOUND, message)


def already_exists(message: str) -> CsiError:
    return CsiError(grpc.StatusCode.ALREADY_EXISTS, message)


def out_of_range(message: str) -> CsiError:
    return CsiError(grpc.StatusCode.OUT_OF_RANGE, message)


def exhausted(message: str) -> CsiError:
    return CsiError(grpc.StatusCode.RESOURCE_EXHAUSTED, message)


def failed_precondition(message: str) -> CsiError:
    return CsiError(grpc.StatusCode.FAILED_PRECONDITION, message)


def aborted(message: str) -> CsiError:
    return CsiError(grpc.StatusCode.ABORTED, message)
