"""Errors across gRPC: a status code for everybody and `curve-error-bin` for ourselves.

Owns: the mapping of ErrorKind to curve.v1.ErrorCode and to gRPC status codes, both ways
(docs/formats/control-plane.md). Any thread.
"""

from __future__ import annotations

from typing import Any, NoReturn

import grpc

from curve_py.errors import (
    BusyError,
    CurveError,
    CurveTimeoutError,
    ErrorKind,
    InternalError,
    NotLeaderError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
    error_of_kind,
)
from curve_py.proto import common_pb2 as pb

KEY_ERROR = "curve-error-bin"

_CODES: dict[ErrorKind, tuple[pb.ErrorCode, grpc.StatusCode]] = {
    ErrorKind.NOT_LEADER: (pb.ERROR_CODE_NOT_LEADER, grpc.StatusCode.UNAVAILABLE),
    ErrorKind.UNAVAILABLE: (pb.ERROR_CODE_UNAVAILABLE, grpc.StatusCode.UNAVAILABLE),
    ErrorKind.BUSY: (pb.ERROR_CODE_BUSY, grpc.StatusCode.RESOURCE_EXHAUSTED),
    ErrorKind.NOT_FOUND: (pb.ERROR_CODE_NOT_FOUND, grpc.StatusCode.NOT_FOUND),
    ErrorKind.EXISTS: (pb.ERROR_CODE_EXISTS, grpc.StatusCode.ALREADY_EXISTS),
    ErrorKind.INVALID: (pb.ERROR_CODE_INVALID, grpc.StatusCode.INVALID_ARGUMENT),
    ErrorKind.CONFLICT: (pb.ERROR_CODE_CONFLICT, grpc.StatusCode.FAILED_PRECONDITION),
    ErrorKind.FENCED: (pb.ERROR_CODE_FENCED, grpc.StatusCode.ABORTED),
    ErrorKind.NO_PLACEMENT: (pb.ERROR_CODE_NO_PLACEMENT, grpc.StatusCode.FAILED_PRECONDITION),
    ErrorKind.UNAUTHENTICATED: (pb.ERROR_CODE_UNAUTHENTICATED, grpc.StatusCode.UNAUTHENTICATED),
    ErrorKind.TIMEOUT: (pb.ERROR_CODE_TIMEOUT, grpc.StatusCode.DEADLINE_EXCEEDED),
    ErrorKind.UNSUPPORTED: (pb.ERROR_CODE_UNSUPPORTED, grpc.StatusCode.UNIMPLEMENTED),
    ErrorKind.INTERNAL: (pb.ERROR_CODE_INTERNAL, grpc.StatusCode.INTERNAL),
    ErrorKind.NO_SPACE: (pb.ERROR_CODE_NO_SPACE, grpc.StatusCode.RESOURCE_EXHAUSTED),
}
_KIND_OF_CODE = {code: kind for kind, (code, _) in _CODES.items()}


async def abort(context: Any, error: CurveError) -> NoReturn:
    """Ends the call of a grpc.aio handler with `error`."""
    code, status = _CODES.get(error.kind, _CODES[ErrorKind.INTERNAL])
    detail = pb.ErrorDetail(
        code=code,
        message=error.message,
        remedy=error.remedy,
        leader_address=getattr(error, "leader_address", ""),
        retry_after_ms=50 if error.kind is ErrorKind.BUSY else 0,
    )
    await context.abort(status, error.message, ((KEY_ERROR, detail.SerializeToString()),))
    raise AssertionError("abort returned")


def from_rpc_error(error: grpc.RpcError, address: str) -> CurveError:
    """What a failed call to `address` means. Works for grpc and grpc.aio."""
    detail = _detail(error)
    if detail is not None:
        kind = _KIND_OF_CODE.get(detail.code, ErrorKind.INTERNAL)
        if kind is ErrorKind.NOT_LEADER:
            return NotLeaderError(
                detail.message, detail.remedy, leader_address=detail.leader_address
            )
        return error_of_kind(kind, detail.message, detail.remedy)
    status = error.code()
    text = (error.details() or status.name).rstrip(".")
    match status:
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.CANCELLED:
            return UnavailableError(f"{address} cannot be reached: {text}.")
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return CurveTimeoutError(f"{address} did not answer in time.")
        case grpc.StatusCode.UNAUTHENTICATED:
            return UnauthenticatedError(f"{address} refused the request: {text}.")
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return BusyError(f"{address} is busy: {text}.")
        case grpc.StatusCode.UNIMPLEMENTED:
            return UnsupportedError(f"{address} does not know this request: {text}.")
        case _:
            return InternalError(f"{address} failed: {text}.")


def _detail(error: grpc.RpcError) -> pb.ErrorDetail | None:
    metadata: Any = error.trailing_metadata() or ()
    for key, value in metadata:
        if key == KEY_ERROR:
            detail = pb.ErrorDetail()
            try:
                detail.ParseFromString(value)
            except Exception:
                return None
            return detail
    return None
