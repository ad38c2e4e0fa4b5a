"""The funnel around every call: errors, work that takes long, callers that go, what is logged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from prometheus_client import CollectorRegistry

from csi_driver.failures import CsiError
from csi_driver.in_flight import InFlight
from csi_driver.proto import csi_pb2 as csi
from csi_driver.proto.csi_pb2_grpc import (
    ControllerServicer,
    ControllerStub,
    add_ControllerServicer_to_server,
)
from csi_driver.server import Funnel, listen, make_server
from curve_py.errors import BusyError, ConflictError, NoSpaceError


class Slow(ControllerServicer):
    """DeleteVolume ends when it is let; CreateVolume fails as it is told."""

    def __init__(self) -> None:
        self.in_flight = InFlight()
        self.let = asyncio.Event()
        self.ended = 0
        self.error: Exception = CsiError(grpc.StatusCode.OUT_OF_RANGE, "too much")

    async def DeleteVolume(
        self, request: csi.DeleteVolumeRequest, _: Any
    ) -> csi.DeleteVolumeResponse:
        with self.in_flight.holding(request.volume_id):
            await self.let.wait()
            self.ended += 1
        return csi.DeleteVolumeResponse()

    async def CreateVolume(
        self, request: csi.CreateVolumeRequest, _: Any
    ) -> csi.CreateVolumeResponse:
        raise self.error


@pytest.fixture
async def slow(tmp_path: Path) -> AsyncIterator[tuple[Slow, ControllerStub]]:
    servicer, funnel = Slow(), Funnel(0.2, CollectorRegistry())
    server = make_server(funnel)
    add_ControllerServicer_to_server(servicer, server)
    listen(server, tmp_path / "s")
    await server.start()
    async with grpc.aio.insecure_channel(f"unix:{tmp_path}/s") as channel:
        yield servicer, ControllerStub(channel)
    servicer.let.set()
    await server.stop(None)
    await funnel.close()


async def outcome(call: Any) -> grpc.StatusCode:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def test_long_work_goes_on_and_is_not_begun_twice(
    slow: tuple[Slow, ControllerStub],
) -> None:
    servicer, stub = slow
    request = csi.DeleteVolumeRequest(volume_id="v")
    assert await outcome(stub.DeleteVolume(request)) is grpc.StatusCode.DEADLINE_EXCEEDED
    assert await outcome(stub.DeleteVolume(request)) is grpc.StatusCode.ABORTED
    servicer.let.set()
    assert await outcome(stub.DeleteVolume(request)) is grpc.StatusCode.OK
    assert servicer.ended == 2


async def test_work_outlives_its_caller(slow: tuple[Slow, ControllerStub]) -> None:
    servicer, stub = slow
    request = csi.DeleteVolumeRequest(volume_id="v")
    gone = await outcome(stub.DeleteVolume(request, timeout=0.05))
    assert gone is grpc.StatusCode.DEADLINE_EXCEEDED
    assert await outcome(stub.DeleteVolume(request)) is grpc.StatusCode.ABORTED
    servicer.let.set()
    assert await outcome(stub.DeleteVolume(request)) is grpc.StatusCode.OK
    assert servicer.ended == 2


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (CsiError(grpc.StatusCode.OUT_OF_RANGE, "x"), grpc.StatusCode.OUT_OF_RANGE),
        (BusyError("x"), grpc.StatusCode.ABORTED),
        (ConflictError("x"), grpc.StatusCode.FAILED_PRECONDITION),
        (NoSpaceError("x"), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (ValueError("a secret"), grpc.StatusCode.INTERNAL),
    ],
)
async def test_errors_have_their_status(
    slow: tuple[Slow, ControllerStub], error: Exception, status: grpc.StatusCode
) -> None:
    servicer, stub = slow
    servicer.error = error
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.CreateVolume(csi.CreateVolumeRequest(name="v"))
    assert refused.value.code() is status
    assert "secret" not in (refused.value.details() or "")


async def test_what_is_not_there_is_unimplemented(slow: tuple[Slow, ControllerStub]) -> None:
    call = slow[1].CreateSnapshot(csi.CreateSnapshotRequest(name="s"))
    assert await outcome(call) is grpc.StatusCode.UNIMPLEMENTED


async def test_secrets_stay_out_of_logs(
    slow: tuple[Slow, ControllerStub], caplog: pytest.LogCaptureFixture
) -> None:
    servicer, stub = slow
    caplog.set_level(logging.DEBUG)
    request = csi.CreateVolumeRequest(name="v", secrets={"key": "hush"}, parameters={"p": "hush"})
    for error in (CsiError(grpc.StatusCode.ABORTED, "x"), ConflictError("x")):
        servicer.error = error
        await outcome(stub.CreateVolume(request))
    records = [record for record in caplog.records if record.name == "csi_driver.server"]
    assert len(records) == 2
    assert not [record for record in records if "hush" in str(vars(record))]
