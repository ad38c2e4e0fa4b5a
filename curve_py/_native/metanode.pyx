"""A metaserver's raft replica on a native thread (native/metanode). See metaserver/domain/ports.py for the contract."""

from libc.stdint cimport uint64_t
from libcpp cimport bool as cbool
from libcpp.memory cimport unique_ptr
from libcpp.string cimport string
from libcpp.utility cimport move
from libcpp.vector cimport vector

from curve_py._native.common cimport Error, Outcome, StoreId, code_number, store_id_bytes, store_id_from

from curve_py.errors import BusyError, InvalidError
from curve_py.native_errors import native_error


cdef extern from "native/metanode/metanode.h" namespace "curve::metanode" nogil:
    cdef cppclass Event:
        uint64_t index
        uint64_t term
        uint64_t ticket
        cbool flag
        StoreId leader
        string text
    cdef cppclass Lag "curve::metanode::Status::Lag":
        StoreId id
        uint64_t entries
    cdef cppclass Status:
        string role
        uint64_t term
        StoreId leader
        uint64_t commit
        uint64_t applied
        uint64_t first
        uint64_t last
        uint64_t wal_bytes
        string listen
        vector[Lag] members
    cdef cppclass CMetaNode "curve::metanode::MetaNode":
        void start()
        void stop()
        int fd()
        vector[Event] poll(size_t max)
        uint64_t propose(string command)
        uint64_t read_index()
        void transfer(const StoreId& to)
        Outcome snapshot_begin(uint64_t index, uint64_t term)
        Outcome snapshot_commit()
        Status status()


cdef extern from "curve_py/_native/metanode_glue.h" namespace "curve::glue" nogil:
    cbool meta_open(const string& directory, const StoreId& id, const string& listen, const vector[StoreId]& ids,
                    const vector[string]& addresses, const string& secret, cbool bootstrap, uint64_t wal_bytes,
                    unique_ptr[CMetaNode]& into, Error& error)
    Outcome meta_snapshot_write(CMetaNode& node, const char* data, size_t size)
    int event_type(const Event& event)


cdef bytes _id(const StoreId& store_id):
    return store_id_bytes(store_id)


cdef _check(Outcome outcome):
    if not outcome.ok():
        raise native_error(code_number(outcome.error().code), outcome.error().message.decode())


cdef class MetaNode:
    cdef unique_ptr[CMetaNode] _node

    def __init__(self, *, str data_dir, bytes node_id, str listen, list members, bytes secret, bint bootstrap, wal_bytes=0):
        cdef vector[StoreId] ids
        cdef vector[string] addresses
        cdef string directory = data_dir.encode(), address = listen.encode(), key = secret
        cdef Error error
        cdef cbool opened
        cdef uint64_t size = wal_bytes or 0
        cdef StoreId own
        if len(node_id) != 16:
            raise InvalidError("A node id has 16 bytes.")
        own = store_id_from(node_id)
        for member_id, member_address in members:
            if len(member_id) != 16:
                raise InvalidError("A node id has 16 bytes.")
            ids.push_back(store_id_from(member_id))
            addresses.push_back(member_address.encode())
        with nogil:
            opened = meta_open(directory, own, address, ids, addresses, key, bootstrap, size, self._node, error)
        if not opened:
            raise native_error(code_number(error.code), error.message.decode())

    cdef CMetaNode* _open(self) except NULL:
        if self._node.get() == NULL:
            raise InvalidError("The raft node is not open.")
        return self._node.get()

    def start(self):
        self._open().start()

    def stop(self):
        cdef CMetaNode* node = self._open()
        with nogil:
            node.stop()

    def fileno(self):
        return self._open().fd()

    def poll(self, size_t max_events):
        cdef vector[Event] events = self._open().poll(max_events)
        cdef list out = []
        cdef size_t i
        cdef int kind
        for i in range(events.size()):
            kind = event_type(events[i])
            if kind == 0:
                out.append(("Committed", events[i].index, events[i].term, <bytes>events[i].text, events[i].ticket))
            elif kind == 1:
                out.append(("ProposalFailed", events[i].ticket, "lost" if events[i].flag else "not_leader"))
            elif kind == 2:
                leader = _id(events[i].leader)
                out.append(("LeaderChanged", events[i].term, leader if any(leader) else None, bool(events[i].flag)))
            elif kind == 3:
                out.append(("ReadReady", events[i].ticket))
            elif kind == 4:
                out.append(("ReadFailed", events[i].ticket))
            elif kind == 5:
                out.append(("InstallSnapshot", events[i].index, events[i].term, events[i].text.decode()))
            elif kind == 6:
                out.append(("SnapshotWanted", events[i].index))
            else:
                out.append(("Stopped", events[i].text.decode() or None))
        return out

    def propose(self, bytes command):
        cdef uint64_t ticket
        if len(command) > 1024 * 1024:
            raise InvalidError("A command has at most 1 MiB.")
        ticket = self._open().propose(<string>command)
        if ticket == 0:
            raise BusyError("The raft node takes no more proposals for now.")
        return ticket

    def read_index(self):
        cdef uint64_t ticket = self._open().read_index()
        if ticket == 0:
            raise BusyError("The raft node takes no more reads for now.")
        return ticket

    def transfer(self, bytes node_id):
        if len(node_id) != 16:
            raise InvalidError("A node id has 16 bytes.")
        self._open().transfer(store_id_from(node_id))

    def snapshot_begin(self, uint64_t index, uint64_t term):
        _check(self._open().snapshot_begin(index, term))

    def snapshot_write(self, bytes data):
        cdef CMetaNode* node = self._open()
        cdef const char* start = data
        cdef size_t size = len(data)
        cdef Outcome outcome
        with nogil:
            outcome = meta_snapshot_write(node[0], start, size)
        _check(outcome)

    def snapshot_commit(self):
        cdef CMetaNode* node = self._open()
        cdef Outcome outcome
        with nogil:
            outcome = node.snapshot_commit()
        _check(outcome)

    def status(self):
        cdef CMetaNode* node = self._open()
        cdef Status status
        cdef size_t i
        with nogil:
            status = node.status()
        leader = _id(status.leader)
        return {
            "role": status.role.decode(), "term": status.term, "leader_id": leader if any(leader) else None,
            "commit_index": status.commit, "applied_index": status.applied, "first_index": status.first,
            "last_index": status.last, "wal_bytes": status.wal_bytes, "listen": status.listen.decode(),
            "members": [
                {"node_id": _id(status.members[i].id), "lag_entries": status.members[i].entries}
                for i in range(status.members.size())
            ],
        }
