"""A chunkserver's store on a native thread (native/copyset). See chunkserver/ports.py for the contract."""

import json
import os

from libc.stdint cimport uint32_t, uint64_t
from libcpp cimport bool as cbool
from libcpp.memory cimport unique_ptr
from libcpp.string cimport string
from libcpp.vector cimport vector

from curve_py._native.common cimport Code, Error, Outcome, StoreId, code_number, store_id_bytes, store_id_from

from curve_py.errors import InvalidError
from curve_py.native_errors import native_error


cdef extern from "native/base/latency.h" namespace "curve::base" nogil:
    cdef cppclass Latency:
        uint64_t sum_us

cdef extern from "native/copyset/store_node.h" namespace "curve::copyset" nogil:
    cdef cppclass ServerOptions:
        ServerOptions()
    cdef cppclass CheckDifference "curve::copyset::CheckReport::Difference":
        StoreId store
        uint32_t chunk
        cbool missing
        uint32_t blocks, damaged_blocks
    cdef cppclass CheckReport:
        Code code
        StoreId leader
        uint64_t chunks, replicas
        vector[CheckDifference] differences
    cdef cppclass CheckRequest:
        pass
    cdef cppclass TraceRequest:
        pass
    cdef cppclass TraceReport:
        Code code
        uint64_t writes, whole
    cdef cppclass ScrubStatus:
        cbool running
        uint64_t bytes_per_second, passes, started_ns, finished_ns, blocks_done, blocks_total
        uint64_t damaged_blocks, damaged_pages, chunks_compared, chunks_differ
    cdef cppclass StoreEvent:
        uint64_t ticket
        vector[uint64_t] done
        vector[uint64_t] not_leader
        vector[uint64_t] no_space
        string error
        CheckReport report
        TraceReport trace
        cbool applied
        StoreId leader
        uint64_t config_index
    cdef cppclass SyncLimits:
        SyncLimits()
        uint64_t bytes_per_second
        uint32_t syncs_at_once
    cdef cppclass MemberOrder:
        pass
    cdef cppclass Progress "curve::raft::Progress":
        StoreId store
        uint64_t match
        cbool active
        cbool syncing
    cdef cppclass Member "curve::raft::Member":
        StoreId store
    cdef cppclass CopysetStatus:
        uint64_t copyset
        uint64_t term
        StoreId leader
        StoreId preferred
        uint64_t first
        uint64_t last
        uint64_t commit
        uint64_t applied
        cbool damaged
        cbool syncing
        cbool learner
        uint64_t config_index
        cbool config_settled
        uint64_t used_blocks
        uint64_t sync_bytes_done
        uint64_t sync_bytes_total
        vector[Member] members
        vector[Progress] progress
    cdef cppclass ServerCounters:
        uint64_t reads, writes, zeroes, read_bytes, written_bytes, refused, parked
        uint64_t wal_appends, checkpoints, background_blocks, syncs_started, syncs_finished, sync_bytes
        uint64_t waited, corrupt_reads, merges
        uint64_t damaged_sectors, repaired_sectors, repairs_failed, repairs_answered, repairs_dropped, blocks_restored
    cdef cppclass ServerLatency:
        Latency read, write, replicate, wal_append
    cdef cppclass PeerStatus "curve::replica::PeerStatus":
        StoreId store
        string address
        cbool connected
    cdef cppclass ServerStatus:
        StoreId store
        StoreId cluster
        uint64_t incarnation
        uint64_t blocks_total, blocks_free, blocks_reserved, blocks_pending_free, pages_total, pages_free
        uint64_t wal_capacity_bytes, wal_used_bytes, wal_undrained_bytes, overlay_blocks
        uint64_t fence_bytes, fence_bytes_max
        cbool direct_io, wal_torn_tail, wal_damaged
        uint32_t sessions, pages_lost
        ScrubStatus scrub
        ServerCounters counters
        ServerLatency latency
        string failure
        vector[CopysetStatus] copysets
        vector[PeerStatus] peers
    cdef cppclass Genesis "curve::replica::Genesis":
        pass
    cdef cppclass StoreNode:
        void start()
        void stop()
        int fd()
        vector[StoreEvent] poll(size_t max)
        const string& address()
        StoreId store_id()
        StoreId cluster_id()
        uint64_t incarnation()
        cbool direct_io()
        void set_peer(const StoreId& store, const string& address)
        uint64_t form(vector[Genesis] copysets)
        uint64_t fence(uint64_t volume, uint64_t floor, uint64_t ceiling, vector[uint64_t] revoked, vector[uint64_t] copysets)
        uint64_t delete_volume(uint64_t volume, vector[uint64_t] copysets)
        uint64_t transfer(uint64_t copyset, const StoreId& to)
        uint64_t join(vector[uint64_t] copysets)
        uint64_t change_members(const MemberOrder& order)
        uint64_t remove_replica(uint64_t copyset, uint64_t config_index, uint64_t leader_term)
        void set_limits(const SyncLimits& limits)
        void checkpoint()
        ServerStatus status(cbool with_copysets)
        uint64_t mapped_blocks(uint64_t volume)
        void scrub(uint64_t bytes_per_second)
        uint64_t check(const CheckRequest& request)
        uint64_t trace(const TraceRequest& request)


cdef extern from "curve_py/_native/store_glue.h" namespace "curve::glue" nogil:
    Outcome store_format(const string& wal, const string& data, const StoreId& store, const StoreId& cluster,
                         uint64_t data_bytes, uint64_t wal_bytes, cbool zeroed, cbool force)
    cbool store_exists(const string& data, cbool& exists, Error& error)
    cbool store_option(ServerOptions& options, const string& name, uint64_t value)
    cbool store_open(const string& wal, const string& data, const string& listen, const string& secret,
                     const ServerOptions& options, unique_ptr[StoreNode]& into, Error& error)
    Genesis genesis(uint64_t id, const vector[StoreId]& stores, const vector[int]& learners, const StoreId& preferred)
    CheckRequest check_request(uint64_t volume, uint64_t placement, uint32_t chunks, uint32_t copysets, uint64_t copyset)
    TraceRequest trace_request(uint64_t volume, uint64_t duration_ns)
    vector[uint64_t] trace_stage(const TraceReport& report, size_t stage)
    cppclass CopysetChanges:
        vector[size_t] changed
        vector[uint64_t] gone
    CopysetChanges copyset_changes(const ServerStatus& before, const ServerStatus& now)
    string code_text(Code code)
    cbool store_inspect(const string& wal, const string& data, string& into, Error& error)
    cbool store_dump_wal(const string& wal, const string& data, int descriptor, Error& error)
    int event_type(const StoreEvent& event)
    int role_number(const CopysetStatus& status)
    MemberOrder member_order(uint64_t copyset, int change, const StoreId& store, uint32_t voters_min)
    vector[StoreId] members_of(const StoreEvent& event, int role)
    int progress_role(const Progress& progress)
    vector[uint64_t] latency_bounds()
    vector[uint64_t] latency_counts(const Latency& latency)


_ROLES = ("follower", "candidate", "candidate", "leader")
_CHANGES = {"add_learner": 0, "promote": 1, "remove": 2, "prefer": 3}
_TRACE_STAGES = ("client", "network", "queue", "log", "follower", "commit", "answer", "total")  # TraceStage
_BLOCK_BYTES = 65536


cdef StoreId _to_id(value) except *:
    if not isinstance(value, bytes) or len(value) != 16:
        raise InvalidError("A store id has 16 bytes.")
    return store_id_from(value)


cdef bytes _from_id(const StoreId& store_id):
    return store_id_bytes(store_id)


cdef _id_or_none(const StoreId& store_id):
    found = store_id_bytes(store_id)
    return found if any(found) else None


cdef list _member_ids(const StoreEvent& event, int role):
    cdef vector[StoreId] ids = members_of(event, role)
    cdef size_t i
    return [_from_id(ids[i]) for i in range(ids.size())]


cdef dict _report(const CheckReport& report):
    cdef size_t i
    return {
        "code": code_text(report.code).decode(), "leader": _from_id(report.leader),
        "chunks": report.chunks, "replicas": report.replicas,
        "differences": [
            {"store_id": _from_id(report.differences[i].store), "chunk": report.differences[i].chunk,
             "missing": bool(report.differences[i].missing), "blocks": report.differences[i].blocks,
             "damaged_blocks": report.differences[i].damaged_blocks}
            for i in range(report.differences.size())
        ],
    }


cdef dict _trace(const TraceReport& report):
    code = code_text(report.code).decode()
    if code != "ok":
        return {"code": code, "writes": 0, "whole": 0, "stages": {}}
    return {
        "code": code, "writes": report.writes, "whole": report.whole,
        "stages": {name: list(trace_stage(report, stage)) for stage, name in enumerate(_TRACE_STAGES)},
    }


def inspect_store(str wal_path, str data_path):
    """What a stopped store holds, as plain data. Blocks. Raises CurveError."""
    cdef string wal = wal_path.encode(), data = data_path.encode(), text
    cdef Error error
    cdef cbool done
    with nogil:
        done = store_inspect(wal, data, text, error)
    if not done:
        raise native_error(code_number(error.code), error.message.decode())
    return json.loads(text.decode())


def dump_wal(str wal_path, str data_path, int descriptor):
    """The records of a stopped store's log, one JSON object per line. Blocks. Raises CurveError."""
    cdef string wal = wal_path.encode(), data = data_path.encode()
    cdef Error error
    cdef cbool done
    with nogil:
        done = store_dump_wal(wal, data, descriptor, error)
    if not done:
        raise native_error(code_number(error.code), error.message.decode())


cdef dict _latency(const Latency& latency):
    return {"buckets_us": latency_bounds(), "counts": latency_counts(latency), "sum_us": latency.sum_us}


cdef dict _copyset(const CopysetStatus& c):
    cdef size_t k
    leader = _from_id(c.leader)
    return {
        "id": c.copyset,
        "role": "syncing" if c.syncing else "learner" if c.learner else _ROLES[role_number(c)],
        "term": c.term, "leader": leader if any(leader) else None,
        "commit_index": c.commit, "applied_index": c.applied, "first_index": c.first, "last_index": c.last,
        "damaged": bool(c.damaged), "config_index": c.config_index, "config_settled": bool(c.config_settled),
        "used_bytes": c.used_blocks * _BLOCK_BYTES,
        "sync_bytes_done": c.sync_bytes_done, "sync_bytes_total": c.sync_bytes_total,
        "peers": [
            {"store_id": _from_id(c.progress[k].store), "lag_entries": max(0, c.last - c.progress[k].match),
             "role": "learner" if progress_role(c.progress[k]) else "voter",
             "active": bool(c.progress[k].active), "syncing": bool(c.progress[k].syncing)}
            for k in range(c.progress.size())
        ],
    }


cdef class StoreStatus:
    """A store at one moment; see chunkserver/ports.py. Any thread."""
    cdef ServerStatus _status

    def copysets(self, StoreStatus since):
        cdef vector[size_t] differ
        cdef size_t i
        if since is None:
            return [_copyset(self._status.copysets[i]) for i in range(self._status.copysets.size())]
        differ = copyset_changes(since._status, self._status).changed
        return [_copyset(self._status.copysets[differ[i]]) for i in range(differ.size())]

    def is_like(self, StoreStatus since not None):
        cdef CopysetChanges changes = copyset_changes(since._status, self._status)
        return changes.changed.empty() and changes.gone.empty() and self._status.failure == since._status.failure

    def gone(self, StoreStatus since not None):
        return list(copyset_changes(since._status, self._status).gone)

    def summary(self):
        cdef const ServerStatus* status = &self._status
        k2 = status.counters
        return {
            "store_id": _from_id(status.store), "cluster_id": _from_id(status.cluster), "incarnation": status.incarnation,
            "capacity_bytes": status.blocks_total * _BLOCK_BYTES,
            "used_bytes": (status.blocks_total - status.blocks_free - status.blocks_pending_free) * _BLOCK_BYTES,
            "reserved_bytes": status.blocks_reserved * _BLOCK_BYTES,
            "wal_capacity_bytes": status.wal_capacity_bytes, "wal_used_bytes": status.wal_used_bytes,
            "direct_io": bool(status.direct_io),
            "failure": status.failure.decode(),
            "scrub": {
                "running": bool(status.scrub.running), "bytes_per_second": status.scrub.bytes_per_second,
                "passes": status.scrub.passes, "started_at_ms": status.scrub.started_ns // 1000000,
                "finished_at_ms": status.scrub.finished_ns // 1000000, "blocks_done": status.scrub.blocks_done,
                "blocks_total": status.scrub.blocks_total, "damaged_blocks": status.scrub.damaged_blocks,
                "damaged_pages": status.scrub.damaged_pages, "chunks_compared": status.scrub.chunks_compared,
                "chunks_differ": status.scrub.chunks_differ,
            },
            "counters": {
                "reads": k2.reads, "writes": k2.writes, "zeroes": k2.zeroes, "read_bytes": k2.read_bytes,
                "written_bytes": k2.written_bytes, "refused": k2.refused, "parked": k2.parked,
                "wal_appends": k2.wal_appends, "checkpoints": k2.checkpoints,
                "background_blocks": k2.background_blocks, "syncs_started": k2.syncs_started,
                "syncs_finished": k2.syncs_finished, "sync_bytes": k2.sync_bytes, "damaged_reads": k2.corrupt_reads,
                "merges": k2.merges, "damaged_sectors": k2.damaged_sectors,
                "repaired_sectors": k2.repaired_sectors, "repairs_failed": k2.repairs_failed,
                "repairs_answered": k2.repairs_answered, "repairs_dropped": k2.repairs_dropped,
                "blocks_restored": k2.blocks_restored,
                "scrub_passes": status.scrub.passes, "scrub_damaged_blocks": status.scrub.damaged_blocks,
                "scrub_damaged_pages": status.scrub.damaged_pages,
                "scrub_chunks_compared": status.scrub.chunks_compared,
                "scrub_chunks_differ": status.scrub.chunks_differ,
                "waited_for_log": k2.waited,
            },
            "gauges": {
                "sessions": status.sessions, "blocks_reserved": status.blocks_reserved,
                "blocks_pending_free": status.blocks_pending_free, "pages_total": status.pages_total,
                "pages_free": status.pages_free, "wal_torn_tail": int(status.wal_torn_tail),
                "wal_damaged": int(status.wal_damaged), "pages_lost": status.pages_lost,
                "out_of_service": int(not status.failure.empty()),
                "scrub_running": int(status.scrub.running),
                "scrub_finished_seconds": status.scrub.finished_ns // 1000000000,
                "wal_undrained_bytes": status.wal_undrained_bytes,
                "overlay_blocks": status.overlay_blocks,
                "fence_bytes": status.fence_bytes,
                "fence_bytes_max": status.fence_bytes_max,
            },
            "latency": {
                "read": _latency(status.latency.read), "write": _latency(status.latency.write),
                "replicate": _latency(status.latency.replicate),
                "wal_append": _latency(status.latency.wal_append),
            },
        }


cdef class StoreServer:
    cdef unique_ptr[StoreNode] _node
    cdef str _peers_path
    cdef dict _peers

    @staticmethod
    def format(str wal, str data, bytes store_id, bytes cluster_id, data_bytes, wal_bytes, bint zeroed,
               bint force):
        cdef string wal_path = wal.encode(), data_path = data.encode()
        cdef StoreId store = _to_id(store_id), cluster = _to_id(cluster_id)
        cdef uint64_t for_data = data_bytes, for_wal = wal_bytes
        cdef cbool zeros = zeroed, forced = force
        cdef Outcome outcome
        with nogil:
            outcome = store_format(wal_path, data_path, store, cluster, for_data, for_wal, zeros, forced)
        if not outcome.ok():
            raise native_error(code_number(outcome.error().code), outcome.error().message.decode())

    @staticmethod
    def exists(str data):
        cdef string data_path = data.encode()
        cdef cbool found = False, answered
        cdef Error error
        with nogil:
            answered = store_exists(data_path, found, error)
        if not answered:
            raise native_error(code_number(error.code), error.message.decode())
        return bool(found)

    def __init__(self, *, str wal, str data, str peers, str listen, bytes secret, dict options):
        cdef ServerOptions native
        cdef string wal_path = wal.encode(), data_path = data.encode()
        cdef string address = listen.encode(), key = secret
        cdef Error error
        cdef cbool opened
        for name, value in options.items():
            if not store_option(native, name.encode(), <uint64_t>value):
                raise InvalidError(f"There is no store option {name!r}.", "See docs/operations.md for the names.")
        with nogil:
            opened = store_open(wal_path, data_path, address, key, native, self._node, error)
        if not opened:
            raise native_error(code_number(error.code), error.message.decode())
        self._peers_path = peers
        self._peers = {}
        if os.path.exists(self._peers_path):
            with open(self._peers_path, encoding="utf-8") as file:
                try:
                    self._peers = {bytes.fromhex(k): str(v) for k, v in json.load(file).items()}
                except (ValueError, AttributeError):
                    self._peers = {}  # the metaserver sends it again
        for store, peer_address in self._peers.items():
            self._node.get().set_peer(_to_id(store), peer_address.encode())

    cdef StoreNode* _open(self) except NULL:
        if self._node.get() == NULL:
            raise InvalidError("The store is not open.")
        return self._node.get()

    @property
    def store_id(self):
        return _from_id(self._open().store_id())

    @property
    def cluster_id(self):
        return _from_id(self._open().cluster_id())

    @property
    def incarnation(self):
        return self._open().incarnation()

    @property
    def address(self):
        """Where it listens, with the real port."""
        return self._open().address().decode()

    @property
    def direct_io(self):
        return bool(self._open().direct_io())

    def start(self):
        self._open().start()

    def stop(self):
        cdef StoreNode* node = self._open()
        with nogil:
            node.stop()

    def fileno(self):
        return self._open().fd()

    def poll(self, size_t max_events):
        cdef vector[StoreEvent] events = self._open().poll(max_events)
        cdef list out = []
        cdef size_t i
        cdef int kind
        for i in range(events.size()):
            kind = event_type(events[i])
            if kind == 0:
                out.append(("FormDone", events[i].ticket, list(events[i].done)))
            elif kind == 1 or kind == 2:
                out.append(("FenceDone" if kind == 1 else "DeleteDone", events[i].ticket, list(events[i].done),
                            list(events[i].not_leader), list(events[i].no_space)))
            elif kind == 4:
                out.append(("MembersDone", events[i].ticket, bool(events[i].applied), _id_or_none(events[i].leader),
                            events[i].error.decode(), events[i].config_index, _member_ids(events[i], 0),
                            _member_ids(events[i], 1)))
            elif kind == 5:
                out.append(("RemoveDone", events[i].ticket, bool(events[i].applied)))
            elif kind == 6:
                out.append(("TransferDone", events[i].ticket, bool(events[i].applied), _id_or_none(events[i].leader)))
            elif kind == 7:
                out.append(("CheckDone", events[i].ticket, _report(events[i].report)))
            elif kind == 8:
                out.append(("TraceDone", events[i].ticket, _trace(events[i].trace)))
            else:
                out.append(("Stopped", events[i].error.decode() or None))
        return out

    def set_peers(self, list peers):
        cdef StoreNode* node = self._open()
        table = {bytes(store): address for store, address in peers}
        for store, address in table.items():
            node.set_peer(_to_id(store), address.encode())
        if table == self._peers:
            return
        temporary = self._peers_path + ".new"
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump({store.hex(): address for store, address in sorted(table.items())}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self._peers_path)
        self._peers = table

    def form_copysets(self, list copysets):
        cdef vector[Genesis] records
        cdef vector[StoreId] stores
        cdef vector[int] learners
        cdef int learner  # not an expression: Cython would hand over a reference to a value that is gone
        for copyset_id, members, preferred in copysets:
            if not 1 <= len(members) <= 7:
                raise InvalidError(f"Copyset {copyset_id} has {len(members)} members; 1 to 7 are possible.")
            stores.clear()
            learners.clear()
            for store, role in members:
                stores.push_back(_to_id(store))
                learner = 0 if role == "voter" else 1
                learners.push_back(learner)
            records.push_back(genesis(copyset_id, stores, learners, _to_id(preferred)))
        return self._open().form(records)

    def fence(self, uint64_t volume_id, uint64_t floor, uint64_t ceiling, list revoked, list copysets):
        cdef vector[uint64_t] epochs = revoked
        cdef vector[uint64_t] ids = copysets
        return self._open().fence(volume_id, floor, ceiling, epochs, ids)

    def delete_volume(self, uint64_t volume_id, list copysets):
        cdef vector[uint64_t] ids = copysets
        return self._open().delete_volume(volume_id, ids)

    def transfer(self, uint64_t copyset, bytes store_id):
        return self._open().transfer(copyset, _to_id(store_id))

    def join_copysets(self, list copysets):
        cdef vector[uint64_t] ids = copysets
        return self._open().join(ids)

    def change_members(self, uint64_t copyset, str change, bytes store_id, uint32_t voters_min):
        if change not in _CHANGES:
            raise InvalidError(f"There is no member change {change!r}.")
        cdef int number = _CHANGES[change]
        return self._open().change_members(member_order(copyset, number, _to_id(store_id), voters_min))

    def remove_replica(self, uint64_t copyset, uint64_t config_index, uint64_t leader_term):
        return self._open().remove_replica(copyset, config_index, leader_term)

    def set_limits(self, uint64_t sync_bytes_per_second, uint32_t syncs_at_once):
        cdef SyncLimits limits
        limits.bytes_per_second = sync_bytes_per_second
        limits.syncs_at_once = syncs_at_once
        self._open().set_limits(limits)

    def scrub(self, uint64_t bytes_per_second):
        self._open().scrub(bytes_per_second)

    def check(self, uint64_t volume_id, uint64_t placement_id, uint32_t chunks, uint32_t copysets, uint64_t copyset):
        return self._open().check(check_request(volume_id, placement_id, chunks, copysets, copyset))

    def trace(self, uint64_t volume_id, uint64_t duration_ms):
        return self._open().trace(trace_request(volume_id, duration_ms * 1000000))

    def checkpoint(self):
        self._open().checkpoint()

    def mapped_bytes(self, uint64_t volume_id):
        cdef StoreNode* node = self._open()
        cdef uint64_t blocks
        with nogil:
            blocks = node.mapped_blocks(volume_id)
        return blocks * _BLOCK_BYTES

    def look(self):
        """What it is like now. Waits for the store's thread."""
        cdef StoreNode* node = self._open()
        cdef StoreStatus taken = StoreStatus.__new__(StoreStatus)
        with nogil:
            taken._status = node.status(True)
        return taken

    def status(self):
        taken = self.look()
        return taken.summary() | {"copysets": taken.copysets(None)}
