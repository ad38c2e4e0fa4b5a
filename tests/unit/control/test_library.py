"""Sizes, volume maps, settings: what people and programs hand in, and the sentence when it is
wrong.
"""

from __future__ import annotations

import json
import logging
import uuid
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chunkserver import main as chunkserver_main
from chunkserver.main import numeric_address
from chunkserver.settings import ChunkserverSettings
from curve_py import volume_map
from curve_py.config import load_settings
from curve_py.errors import ConfigError, CorruptError, CurveError, InvalidError
from curve_py.service.secret import create_secret
from curve_py.service.structured_log import JsonFormatter
from curve_py.sizes import format_size, parse_size
from curve_py.volume_map import MapCopyset, MapStore, VolumeMap, crc32c
from metaserver.entrypoints import main as metaserver_main
from metaserver.entrypoints.settings import MetaserverSettings

# --- Sizes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("512", 512),
        ("4k", 4096),
        ("10GiB", 10 << 30),
        ("1.5T", 3 << 39),
        ("1.5 TiB", 3 << 39),
        ("10GB", 10 * 10**9),
        ("7B", 7),
        ("2p", 2 << 50),
    ],
)
def test_sizes_as_people_write_them(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "ten", "-1", "1X", "1.0001", "1 GiBs", "1e3", "99999P", "G"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InvalidError):
        parse_size(text)


@given(st.integers(0, 2**62))
def test_a_formatted_size_is_close(size: int) -> None:
    number, unit = format_size(size).split(" ")
    factor = 1024 ** ["B", "KiB", "MiB", "GiB", "TiB", "PiB"].index(unit)
    assert abs(float(number) * factor - size) <= 0.006 * factor


# --- Volume maps --------------------------------------------------------------------------------

_u64 = st.integers(0, 2**64 - 1)
_ids = st.binary(min_size=16, max_size=16)
_addresses = st.one_of(
    st.tuples(st.ip_addresses(v=4), st.integers(1, 65535)).map(lambda t: f"{t[0]}:{t[1]}"),
    st.tuples(st.ip_addresses(v=6), st.integers(1, 65535)).map(lambda t: f"[{t[0]}]:{t[1]}"),
)


@st.composite
def volume_maps(draw: st.DrawFn) -> VolumeMap:
    stores = tuple(draw(st.lists(st.builds(MapStore, _ids, _addresses), min_size=1, max_size=9)))
    row = st.lists(st.integers(0, len(stores) - 1), min_size=1, max_size=7).map(tuple)
    rows = st.tuples(row, st.integers(0, 6)).map(lambda t: MapCopyset(t[0], t[1] % len(t[0])))
    count = 1 << draw(st.integers(0, 4))
    return VolumeMap(
        *(draw(_u64) for _ in range(5)),
        stripe_unit_bytes=draw(st.integers(0, 2**32 - 1)),
        stripe_count=draw(st.integers(0, 2**32 - 1)),
        pool_id=draw(_u64),
        read_only=draw(st.booleans()),
        stores=stores,
        copysets=tuple(draw(st.lists(rows, min_size=count, max_size=count))),
    )


@given(volume_maps())
def test_a_volume_map_comes_back(original: VolumeMap) -> None:
    assert volume_map.decode(volume_map.encode(original)) == original


@given(volume_maps(), st.data())
def test_a_damaged_volume_map_is_refused(original: VolumeMap, data: st.DataObject) -> None:
    encoded = bytearray(volume_map.encode(original))
    position = data.draw(st.integers(0, len(encoded) - 1))
    encoded[position] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(CorruptError):
        volume_map.decode(bytes(encoded))


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_in_order(data: bytes) -> None:
    with pytest.raises(CorruptError):
        volume_map.decode(data)


@given(volume_maps(), st.integers(0, 200))
def test_a_cut_volume_map_is_refused(original: VolumeMap, cut: int) -> None:
    encoded = volume_map.encode(original)
    with pytest.raises(CorruptError):
        volume_map.decode(encoded[: min(cut, len(encoded) - 1)])


def test_the_volume_map_has_the_documented_bytes() -> None:
    """docs/formats/volume-map.md: a change here is a change of the format."""
    encoded = volume_map.encode(
        VolumeMap(
            map_version=2,
            volume_id=3,
            placement_id=4,
            size_bytes=5,
            epoch=6,
            stripe_unit_bytes=7,
            stripe_count=8,
            pool_id=9,
            read_only=True,
            stores=(MapStore(b"A" * 16, "1.2.3.4:258"),),
            copysets=(MapCopyset((0,), 0),),
        )
    )
    body = (
        b"CVMP"
        + bytes.fromhex("0100010084000000")
        + b"".join(n.to_bytes(8, "little") for n in (2, 3, 4, 5, 6))
        + b"".join(n.to_bytes(4, "little") for n in (7, 8, 1, 1))
        + (9).to_bytes(8, "little")
        + b"A" * 16
        + bytes.fromhex("0201040001020304")
        + bytes(12)
        + bytes.fromhex("01000000")
        + b"\xff" * 12
    )
    assert encoded == body + crc32c(body).to_bytes(4, "little")
    assert len(encoded) == 0x84
    assert crc32c(b"123456789") == 0xE3069283


@pytest.mark.parametrize("address", ["localhost:1", "1.2.3.4:0", "1.2.3.4", ":1", "1.2.3.4:99999"])
def test_addresses_that_no_map_can_hold(address: str) -> None:
    good = VolumeMap(
        1, 1, 1, 1, 1, 1, 1, 1, False, (MapStore(b"A" * 16, "1.2.3.4:5"),), (MapCopyset((0,), 0),)
    )
    assert volume_map.encode(good)
    with pytest.raises(InvalidError):
        volume_map.encode(replace(good, stores=(MapStore(b"A" * 16, address),)))
    with pytest.raises(InvalidError):
        volume_map.encode(replace(good, copysets=good.copysets * 3))
    with pytest.raises(InvalidError):
        volume_map.encode(replace(good, copysets=(MapCopyset((1,), 0),)))


# --- Settings -----------------------------------------------------------------------------------

CHUNKSERVER = """
secret_file = "{secret}"
store_path = "/nowhere"
data_listen = "127.0.0.1:7000"
admin_listen = "127.0.0.1:7001"
metaservers = ["127.0.0.1:7101", "127.0.0.1:7102"]
data_bytes = "20GiB"
[options]
beat_ms = 20
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    create_secret(tmp_path / "secret")
    path = tmp_path / "chunkserver.toml"
    path.write_text(CHUNKSERVER.format(secret=tmp_path / "secret"))
    return path


def load(*arguments: str) -> ChunkserverSettings:
    return load_settings(ChunkserverSettings, "curve-chunkserver", "", arguments)


def test_flags_win_over_environment_over_file(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load("--config", str(config))
    assert settings.data_bytes == 20 << 30
    assert settings.sizes(0) == (20 << 30, 2 << 30)
    # In whole MiB, so that the log ends on a sector.
    odd = settings.model_copy(update={"data_bytes": 4 * 1024**3, "wal_bytes": 0})
    assert odd.sizes(0) == (4 << 30, 409 << 20)
    assert settings.options == {"beat_ms": 20}
    assert settings.metaservers == ["127.0.0.1:7101", "127.0.0.1:7102"]
    monkeypatch.setenv("CURVE_ZONE", "from-environment")
    monkeypatch.setenv("CURVE_DATA_BYTES", "30GiB")
    monkeypatch.setenv("CURVE_METASERVERS", '["127.0.0.1:1"]')
    settings = load("--config", str(config), "--data-bytes", "40GiB", "--server", "s1")
    assert (settings.zone, settings.server, settings.data_bytes) == (
        "from-environment",
        "s1",
        40 << 30,
    )
    assert settings.metaservers == ["127.0.0.1:1"]
    settings = load("--config", str(config), "--metaservers", "h:1", "--metaservers", "h:2")
    assert settings.metaservers == ["h:1", "h:2"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("store_path", "store_patch"), "unknown key 'store_patch'"),
        (("[options]", "[options"), "is not TOML"),
        (("20GiB", "20 apples"), "'data_bytes' is wrong.*not a size"),
        (("127.0.0.1:7000", "7000"), "'data_listen' is wrong.*not an address"),
        (('store_path = "/nowhere"', ""), "'store_path' is missing"),
        (('metaservers = ["127.0.0.1:7101", "127.0.0.1:7102"]', "metaservers = []"), "is empty"),
        (("[options]", 'preallocation = "some"\n[options]'), "'falloc' or 'full'"),
    ],
)
def test_a_wrong_setting_is_one_sentence(
    config: Path, change: tuple[str, str], sentence: str
) -> None:
    config.write_text(config.read_text().replace(*change))
    with pytest.raises(ConfigError, match=sentence) as wrong:
        load("--config", str(config))
    assert "\n" not in str(wrong.value)


def test_formatting_needs_to_know_the_cluster(config: Path) -> None:
    with pytest.raises(ConfigError, match="cluster_id"):
        load("--config", str(config), "--format")
    some = uuid.uuid4()
    settings = load("--config", str(config), "--format", "--cluster-id", str(some))
    assert settings.format
    assert settings.cluster_id == some.bytes


def metaserver_toml(directory: Path, members: int = 3) -> str:
    ids = [uuid.UUID(int=n + 1) for n in range(members)]
    tables = "".join(
        f'[[members]]\nnode_id = "{each}"\npeer_address = "h:1"\ngrpc_address = "h:{n}"\n'
        for n, each in enumerate(ids, 1)
    )
    return (
        f'secret_file = "{directory / "secret"}"\ndata_dir = "{directory / "meta"}"\n'
        f'node_id = "{ids[0]}"\ngrpc_listen = "127.0.0.1:1"\npeer_listen = "127.0.0.1:2"\n{tables}'
    )


def test_a_metaserver_knows_its_members(config: Path) -> None:
    path = config.with_name("meta.toml")
    path.write_text(metaserver_toml(config.parent))
    settings = load_settings(MetaserverSettings, "m", "", ["--config", str(path), "--bootstrap"])
    assert [m.grpc_address for m in settings.members] == ["h:1", "h:2", "h:3"]
    assert settings.bootstrap
    assert settings.advertised == "h:1"
    path.write_text(metaserver_toml(config.parent, members=2))
    with pytest.raises(ConfigError, match="1, 3 or 5"):
        load_settings(MetaserverSettings, "m", "", ["--config", str(path)])


def test_an_empty_metaserver_starts_only_by_bootstrap(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """R1, both ways, before anything is opened."""
    path = config.with_name("meta.toml")
    path.write_text(metaserver_toml(config.parent))
    assert metaserver_main.main(["--config", str(path)]) == 1
    assert "is empty" in capsys.readouterr().err
    (config.parent / "meta").mkdir()
    (config.parent / "meta" / "wal").touch()
    assert metaserver_main.main(["--config", str(path), "--bootstrap"]) == 1
    assert "not empty" in capsys.readouterr().err


def test_services_fail_with_a_sentence(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert chunkserver_main.main(["--config", str(config.with_name("none.toml"))]) == 1
    assert "There is no configuration file" in capsys.readouterr().err
    (config.parent / "secret").chmod(0o644)
    assert chunkserver_main.main(["--config", str(config)]) == 1
    error = capsys.readouterr().err
    assert "can be read by others" in error
    assert "chmod 600" in error


def test_addresses_for_maps_are_numbers() -> None:
    assert numeric_address("127.0.0.1:5") == "127.0.0.1:5"
    assert numeric_address("[::1]:5") == "[::1]:5"
    with pytest.raises(ConfigError, match="data_advertise"):
        numeric_address("0.0.0.0:5")


def test_logs_are_one_object_a_line() -> None:
    record = logging.makeLogRecord(
        {"name": "x", "levelname": "INFO", "msg": "two\n%s", "args": ("lines",), "store": b"\x01"}
    )
    line = JsonFormatter("chunkserver").format(record)
    assert "\n" not in line
    parsed = json.loads(line)
    assert parsed["message"] == "two\nlines"
    assert parsed["service"] == "chunkserver"
    assert parsed["store"] == "01"


def test_every_kind_of_error_has_its_class() -> None:
    from curve_py.errors import ErrorKind, error_of_kind

    for kind in ErrorKind:
        error = error_of_kind(kind, "What.", "Do.")
        assert isinstance(error, CurveError)
        assert error.kind is kind
        assert str(error) == "What. Do."
