"""Suites: fio job files that say beside each job what is to be kept. Pure but for reading files.

A suite is a job file that plain fio runs; in comments that begin with "#:" it has what fio has no
word for (docs/benchmarks.md): titles, sizes, and limits like `must mean_us/floor <= 1.7`. Options
whose value is a CURVE_* variable belong to the system that is measured and are replaced by it. A
list (NAME.list) names suites and scenarios. They are installed with the package.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path

from curve_py.errors import InvalidError, NotFoundError
from curve_py.sizes import parse_size

SCENARIO = "scenario:"
HIGHER_IS_BETTER = frozenset({"iops", "mib_per_second"})
_GIB = 1024**3
_LIMIT = re.compile(r"^([a-z0-9_]+)(?:/([a-z0-9_]+))?\s*(<=|>=)\s*([0-9.]+)$")
_OPERATIONS = {"randwrite": "write", "write": "write", "randread": "read", "read": "readers"}


@dataclass(frozen=True, slots=True)
class Limit:
    """`measure`, or its ratio to `base`: a side (floor, engine) or another measure."""

    measure: str
    base: str
    at_most: bool
    must: float | None = None
    goal: float | None = None

    def __str__(self) -> str:
        name = f"{self.measure}/{self.base}" if self.base else self.measure
        return f"{name} {'<=' if self.at_most else '>='}"

    def same_figure(self, other: Limit) -> bool:
        return (self.measure, self.base) == (other.measure, other.base)


@dataclass(slots=True)
class Job:
    name: str
    title: str = ""
    options: dict[str, str] = field(default_factory=dict)
    limits: list[Limit] = field(default_factory=list)
    seconds: float | None = None
    runs: int | None = None
    volumes: int = 1
    export: str = ""  # how the volume is reached: "" the fio engine, nbd
    beside: str = ""  # engine: the same job through the fio engine on one volume
    floor: str = ""  # operation of the floor; "" none
    floor_share: float = 1.0  # of the floor's rate
    floor_seconds: float | None = None

    @property
    def writes(self) -> bool:
        return "write" in self.options["rw"] or self.options["rw"].endswith("rw")

    @property
    def depth(self) -> int:
        return int(self.options.get("iodepth", "1"))

    @property
    def block_bytes(self) -> int:
        return parse_size(self.options.get("bs", "4k"))


@dataclass(slots=True)
class Suite:
    name: str
    title: str = ""
    options: dict[str, str] = field(default_factory=dict)  # of all jobs
    jobs: list[Job] = field(default_factory=list)
    volume_bytes: int = _GIB
    store_bytes: int = 4 * _GIB
    wal_bytes: int = 0  # 0: what a store of that size gets by itself
    seconds: float = 5.0
    runs: int = 5


def parse_limit(text: str, *, goal: bool = False) -> Limit:
    """`mean_us/floor <= 1.7`. Raises InvalidError."""
    match = _LIMIT.match(text.strip())
    if match is None:
        raise InvalidError(
            f"'{text}' is not a limit.", "Write it like mean_us/floor <= 1.7, or iops >= 5000."
        )
    measure, base, sign, value = match.groups()
    number = float(value)
    limit = Limit(measure, base or "", sign == "<=")
    return replace(limit, goal=number) if goal else replace(limit, must=number)


def parse_given_limit(text: str) -> tuple[str, Limit]:
    """`JOB:MEASURE[/BASE]=VALUE`, as on the command line. The measure says which side is good."""
    job, colon, rest = text.partition(":")
    figure, equals, value = rest.partition("=")
    if not (job and colon and equals):
        raise InvalidError(
            f"'{text}' is not a limit.",
            "Write it like --limit randwrite-4k-1:mean_us=600 or randread-4k-32:iops/floor=0.9.",
        )
    sign = ">=" if figure.partition("/")[0] in HIGHER_IS_BETTER else "<="
    return job, parse_limit(f"{figure} {sign} {value}")


def add_limit(limits: list[Limit], new: Limit) -> None:
    """Must and goal of one figure are one limit."""
    for number, old in enumerate(limits):
        if old.same_figure(new):
            must = old.must if new.must is None else new.must
            goal = old.goal if new.goal is None else new.goal
            limits[number] = replace(old, must=must, goal=goal)
            return
    limits.append(new)


def parse_suite(name: str, text: str) -> Suite:
    """Raises InvalidError with the line."""
    suite = Suite(name)
    job: Job | None = None
    options = suite.options
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        try:
            if line.startswith("#:"):
                word, _, value = line[2:].strip().partition(" ")
                _direct(suite, job, word, value.strip())
            elif line.startswith("[") and line.endswith("]"):
                if line != "[global]":
                    job = Job(line[1:-1], options=dict(suite.options))
                    suite.jobs.append(job)
                    options = job.options
            elif line and line[0] not in "#;":
                key, _, value = line.partition("=")
                options[key.strip()] = value.strip()
        except (InvalidError, ValueError) as error:
            raise InvalidError(f"Suite {name}, line {number}: {error}") from None
    if not suite.jobs:
        raise InvalidError(f"Suite {name} has no job.")
    for one in suite.jobs:
        _complete(suite, one)
    return suite


def _direct(suite: Suite, job: Job | None, word: str, value: str) -> None:
    owner: Suite | Job = suite if job is None else job
    match word:
        case "title":
            owner.title = value
        case "seconds":
            owner.seconds = float(value)
        case "runs":
            owner.runs = int(value)
        case "volume" | "wal" | "store" if job is None:
            setattr(suite, f"{word}_bytes", parse_size(value))
        case "must" | "goal" if job is not None:
            add_limit(job.limits, parse_limit(value, goal=word == "goal"))
        case "volumes" if job is not None:
            job.volumes = int(value)
        case "export" if job is not None and value in ("nbd",):
            job.export = value
        case "beside" if job is not None and value in ("engine",):
            job.beside = value
        case "floor" if job is not None:
            job.floor, _, divisor = value.partition("/")
            job.floor_share = 1 / float(divisor or 1)
        case "floor-seconds" if job is not None:
            job.floor_seconds = float(value)
        case _:
            raise InvalidError(f"'{word} {value}' is not known here.")


def _complete(suite: Suite, job: Job) -> None:
    if "rw" not in job.options:
        raise InvalidError(f"Suite {suite.name}: job {job.name} has no rw=.")
    job.title = job.title or job.name
    job.floor = job.floor or ("" if job.beside else _OPERATIONS.get(job.options["rw"], ""))


# --- Where they are -------------------------------------------------------------------------------


def suite_directory() -> Path:
    """Those of the package."""
    return Path(str(resources.files("curve_py.cli.bench"))) / "suites"


def suite_names(directory: Path) -> list[str]:
    return sorted(path.stem for path in directory.iterdir() if path.suffix in (".fio", ".list"))


def members(directory: Path, names: list[str]) -> list[str]:
    """Suite and scenario names, with lists replaced by what they name, and none twice."""
    found: list[str] = []
    for name in names:
        listed = directory / f"{name}.list"
        if listed.exists():
            lines = [line.partition("#")[0].strip() for line in listed.read_text().splitlines()]
            found += members(directory, [line for line in lines if line])
        else:
            found.append(name)
    return list(dict.fromkeys(found))


def load_suite(directory: Path, name: str) -> Suite:
    """One of the package, or a file by its path. Raises NotFoundError, InvalidError."""
    path = Path(name) if name.endswith(".fio") else directory / f"{name}.fio"
    try:
        return parse_suite(path.stem, path.read_text())
    except OSError:
        raise NotFoundError(
            f"There is no suite {name}.", f"There are: {', '.join(suite_names(directory))}."
        ) from None
