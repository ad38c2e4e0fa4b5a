"""From codes of the native core (native/base/status.h) to exceptions: the one funnel."""

from __future__ import annotations

from curve_py import errors

_BY_CODE: dict[int, type[errors.CurveError]] = {
    1: errors.UnavailableError,
    2: errors.UnavailableError,
    3: errors.FencedError,
    4: errors.NotFoundError,
    5: errors.NoSpaceError,
    6: errors.InvalidError,
    7: errors.CorruptError,
    8: errors.BusyError,
    9: errors.NotFoundError,
    10: errors.ClosedError,
    11: errors.CurveIoError,
    12: errors.CorruptError,
    13: errors.CurveTimeoutError,
    14: errors.UnavailableError,
    15: errors.UnauthenticatedError,
    16: errors.UnsupportedError,
    17: errors.NotFoundError,
    18: errors.ExistsError,
    19: errors.LockedError,
    20: errors.ReadOnlyError,
    21: errors.ClosedError,
    22: errors.UnavailableError,
}

_SENTENCES: dict[int, str] = {
    3: "Another attachment of this volume has taken over; this one is fenced for good.",
    4: "The volume is not known to its chunkservers; it may have been deleted.",
    5: "The chunkservers are full; delete data or add chunkservers.",
    6: "The request is outside the volume or not aligned to 512 bytes.",
    7: "Data was damaged on its way to the chunkservers, by this machine's memory or network.",
    10: "The volume is closed.",
    20: "The volume is open for reading only.",
}


def native_error(code: int, message: str = "") -> errors.CurveError:
    """The exception for a native code (not 0), with `message` or a general sentence."""
    kind = _BY_CODE.get(code, errors.InternalError)
    sentence = message or _SENTENCES.get(code, f"The storage core answered with code {code}.")
    return kind(sentence[:1].upper() + sentence[1:])
