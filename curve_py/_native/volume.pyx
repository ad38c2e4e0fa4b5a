"""Open volumes and their exports on one native thread (native/export/volume_node.h). curve_py.client is the pleasant side."""

from cpython.buffer cimport PyBUF_C_CONTIGUOUS, PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libcpp cimport bool as cbool
from libcpp.memory cimport unique_ptr
from libcpp.string cimport string
from libcpp.vector cimport vector

from curve_py._native.common cimport Code, Error, Outcome, code_number

from curve_py.errors import ClosedError, InvalidError
from curve_py.native_errors import native_error

READ, WRITE, DISCARD, WRITE_ZEROES, FLUSH, BLOCK_STATUS = range(6)


cdef extern from "native/export/volume_node.h" namespace "curve::exports" nogil:
    cdef cppclass Completion:
        uint64_t ticket
        Code code
    cdef cppclass ClientStats "curve::client::ClientStats":
        uint64_t reads, writes, read_bytes, written_bytes, retries, reconnects, leader_changes, inflight, longest_ns
    cdef cppclass NbdStats:
        uint64_t connections, requests, errors, read_bytes, written_bytes
    cdef cppclass FuseStats:
        uint64_t requests, errors, read_bytes, written_bytes, resent, inflight
    cdef cppclass NbdDeviceStats:
        uint64_t requests, errors, read_bytes, written_bytes, inflight
    cdef cppclass CVolumeNode "curve::exports::VolumeNode":
        void close_volume(uint64_t volume)
        cbool fenced(uint64_t volume)
        uint64_t size_bytes(uint64_t volume)
        ClientStats stats(uint64_t volume)
        int fd()
        vector[Completion] poll(size_t max)
        Outcome nbd_add(uint64_t server, const string& name, const string& description, uint64_t volume, cbool read_only)
        void nbd_remove(uint64_t server, const string& name)
        void nbd_close(uint64_t server)
        NbdStats nbd_stats(uint64_t server)
        int fuse_fd(uint64_t fuse)
        void fuse_grew(uint64_t fuse)
        cbool fuse_ended(uint64_t fuse)
        cbool fuse_can_resend(uint64_t fuse)
        FuseStats fuse_stats(uint64_t fuse)
        void fuse_stop(uint64_t fuse)
        cbool nbd_ended(uint64_t device)
        NbdDeviceStats nbd_device_stats(uint64_t device)
        void nbd_stop(uint64_t device)
        void stop()


cdef extern from "native/export/loop_device.h" namespace "curve::exports" nogil:
    Outcome grow_loop(uint32_t number)
    Outcome detach_loop(uint32_t number, const string& uuid, cbool force)
    string loop_identity(uint32_t number)
    uint64_t loop_size_bytes(uint32_t number)


cdef extern from "native/export/device_node.h" namespace "curve::exports" nogil:
    Outcome open_and_close_device(const string& path)


cdef extern from "native/export/nbd_session.h" namespace "curve::exports" nogil:
    uint16_t transmission_flags(cbool read_only)


cdef extern from "curve_py/_native/volume_glue.h" namespace "curve::glue" nogil:
    cbool node_start(const string& secret, unique_ptr[CVolumeNode]& into, Error& error)
    cbool node_open_volume(CVolumeNode& node, const string& map, uint64_t& into, Error& error)
    Outcome node_update_map(CVolumeNode& node, uint64_t volume, const string& map)
    cbool node_nbd_listen(CVolumeNode& node, const string& address, string& bound, uint64_t& into, Error& error)
    cbool node_fuse_start(CVolumeNode& node, uint64_t volume, const string& uuid, cbool read_only, int fd, uint64_t& into,
                          Error& error)
    cbool node_fuse_attach(CVolumeNode& node, uint64_t fuse, const string& uuid, cbool read_only, uint32_t& into, Error& error)
    cbool node_nbd_serve(CVolumeNode& node, uint64_t volume, int fd, cbool read_only, uint64_t& into, Error& error)
    int node_submit_and_wait(CVolumeNode& node, uint64_t volume, int type, uint64_t offset, uint64_t size, void* memory,
                             cbool no_unmap)
    void node_submit(CVolumeNode& node, uint64_t volume, int type, uint64_t offset, uint64_t size, void* memory, cbool no_unmap,
                     uint64_t ticket)


cdef _raise(Outcome outcome):
    if not outcome.ok():
        raise native_error(code_number(outcome.error().code), outcome.error().message.decode())


cdef class _Pinned:
    """A request's memory, held until its completion was taken."""
    cdef Py_buffer view
    cdef bint held

    def __cinit__(self):
        self.held = False

    cdef hold(self, object memory, bint writable):
        PyObject_GetBuffer(memory, &self.view, PyBUF_C_CONTIGUOUS | (PyBUF_WRITABLE if writable else PyBUF_SIMPLE))
        self.held = True

    def __dealloc__(self):
        if self.held:
            PyBuffer_Release(&self.view)


cdef class VolumeNode:
    """One thread, any number of volumes and NBD servers. Handles are integers."""
    cdef unique_ptr[CVolumeNode] _node
    cdef dict _pinned
    cdef uint64_t _next_ticket

    def __init__(self, bytes secret):
        cdef string key = secret
        cdef Error error
        cdef cbool good
        with nogil:
            good = node_start(key, self._node, error)
        if not good:
            raise native_error(code_number(error.code), error.message.decode())
        self._pinned = {}
        self._next_ticket = 1

    cdef CVolumeNode* _open(self) except NULL:
        if self._node.get() == NULL:
            raise ClosedError("The volume node is closed.")
        return self._node.get()

    def open_volume(self, bytes volume_map):
        cdef CVolumeNode* node = self._open()
        cdef string encoded = volume_map
        cdef uint64_t handle = 0
        cdef Error error
        cdef cbool good
        with nogil:
            good = node_open_volume(node[0], encoded, handle, error)
        if not good:
            raise native_error(code_number(error.code), error.message.decode())
        return handle

    def update_map(self, uint64_t volume, bytes volume_map):
        cdef CVolumeNode* node = self._open()
        cdef string encoded = volume_map
        cdef Outcome outcome
        with nogil:
            outcome = node_update_map(node[0], volume, encoded)
        _raise(outcome)

    def close_volume(self, uint64_t volume):
        cdef CVolumeNode* node = self._open()
        with nogil:
            node.close_volume(volume)

    def fenced(self, uint64_t volume):
        cdef CVolumeNode* node = self._open()
        cdef cbool out
        with nogil:
            out = node.fenced(volume)
        return bool(out)

    def size_bytes(self, uint64_t volume):
        cdef CVolumeNode* node = self._open()
        cdef uint64_t out
        with nogil:
            out = node.size_bytes(volume)
        return out

    def stats(self, uint64_t volume):
        cdef CVolumeNode* node = self._open()
        cdef ClientStats s
        with nogil:
            s = node.stats(volume)
        return {"reads": s.reads, "writes": s.writes, "read_bytes": s.read_bytes, "written_bytes": s.written_bytes,
                "retries": s.retries, "reconnects": s.reconnects, "leader_changes": s.leader_changes,
                "inflight": s.inflight, "longest_ns": s.longest_ns}

    def transfer(self, uint64_t volume, int operation, uint64_t offset, uint64_t size, memory=None, bint no_unmap=False):
        """Does one operation and waits for it, without the GIL. `memory`: contiguous buffer of `size` bytes (READ fills it,
        WRITE takes it; BLOCK_STATUS fills one bit per 4 KiB sector)."""
        cdef CVolumeNode* node = self._open()
        cdef _Pinned pinned = _Pinned()
        cdef void* data = NULL
        cdef int code
        if memory is not None:
            pinned.hold(memory, operation != WRITE)
            self._check_size(operation, size, pinned.view.len)
            data = pinned.view.buf
        elif operation in (READ, WRITE, BLOCK_STATUS):
            raise InvalidError("This operation needs memory.")
        with nogil:
            code = node_submit_and_wait(node[0], volume, operation, offset, size, data, no_unmap)
        if code:
            raise native_error(code)

    def _check_size(self, int operation, uint64_t size, uint64_t have):
        wanted = (size // 4096 + 7) // 8 if operation == BLOCK_STATUS else size
        if have < wanted:
            raise InvalidError(f"The buffer has {have} bytes, {wanted} are needed.")

    def submit(self, uint64_t volume, int operation, uint64_t offset, uint64_t size, memory=None, bint no_unmap=False):
        """Starts one operation; its completion (ticket, error or None) comes out of poll()."""
        cdef CVolumeNode* node = self._open()
        cdef _Pinned pinned = _Pinned()
        cdef void* data = NULL
        cdef uint64_t ticket
        if memory is not None:
            pinned.hold(memory, operation != WRITE)
            self._check_size(operation, size, pinned.view.len)
            data = pinned.view.buf
        elif operation in (READ, WRITE, BLOCK_STATUS):
            raise InvalidError("This operation needs memory.")
        ticket = self._next_ticket
        self._next_ticket += 1
        self._pinned[ticket] = pinned
        node_submit(node[0], volume, operation, offset, size, data, no_unmap, ticket)
        return ticket

    def fileno(self):
        return self._open().fd()

    def poll(self, size_t max_events):
        cdef vector[Completion] done = self._open().poll(max_events)
        cdef list out = []
        cdef size_t i
        cdef int code
        for i in range(done.size()):
            self._pinned.pop(done[i].ticket, None)
            code = code_number(done[i].code)
            out.append((done[i].ticket, native_error(code) if code else None))
        return out

    def nbd_listen(self, str address):
        """(server, bound address): "unix:/path" or "HOST:PORT"."""
        cdef CVolumeNode* node = self._open()
        cdef string text = address.encode(), bound
        cdef uint64_t server = 0
        cdef Error error
        cdef cbool good
        with nogil:
            good = node_nbd_listen(node[0], text, bound, server, error)
        if not good:
            raise native_error(code_number(error.code), error.message.decode())
        return server, bound.decode()

    def nbd_add(self, uint64_t server, str name, str description, uint64_t volume, bint read_only):
        cdef CVolumeNode* node = self._open()
        cdef string export = name.encode(), text = description.encode()
        cdef Outcome outcome
        with nogil:
            outcome = node.nbd_add(server, export, text, volume, read_only)
        _raise(outcome)

    def nbd_remove(self, uint64_t server, str name):
        cdef CVolumeNode* node = self._open()
        cdef string export = name.encode()
        with nogil:
            node.nbd_remove(server, export)

    def nbd_close(self, uint64_t server):
        cdef CVolumeNode* node = self._open()
        with nogil:
            node.nbd_close(server)

    def nbd_stats(self, uint64_t server):
        cdef CVolumeNode* node = self._open()
        cdef NbdStats s
        with nogil:
            s = node.nbd_stats(server)
        return {"connections": s.connections, "requests": s.requests, "errors": s.errors, "read_bytes": s.read_bytes,
                "written_bytes": s.written_bytes}

    def fuse_start(self, uint64_t volume, str uuid, bint read_only, int fd=-1):
        """The export. `fd` (taken over): of a file system that an earlier process began."""
        cdef CVolumeNode* node = self._open()
        cdef string text = uuid.encode()
        cdef uint64_t fuse = 0
        cdef Error error
        cdef cbool good
        with nogil:
            good = node_fuse_start(node[0], volume, text, read_only, fd, fuse, error)
        if not good:
            raise native_error(code_number(error.code), error.message.decode())
        return fuse

    def fuse_attach(self, uint64_t fuse, str uuid, bint read_only):
        """Makes the loop device; its number."""
        cdef CVolumeNode* node = self._open()
        cdef string text = uuid.encode()
        cdef uint32_t number = 0
        cdef Error error
        cdef cbool good
        with nogil:
            good = node_fuse_attach(node[0], fuse, text, read_only, number, error)
        if not good:
            raise native_error(code_number(error.code), error.message.decode())
        return number

    def fuse_fd(self, uint64_t fuse):
        cdef CVolumeNode* node = self._open()
        cdef int out
        with nogil:
            out = node.fuse_fd(fuse)
        return out

    def fuse_grew(self, uint64_t fuse):
        cdef CVolumeNode* node = self._open()
        with nogil:
            node.fuse_grew(fuse)

    def fuse_ended(self, uint64_t fuse):
        cdef CVolumeNode* node = self._open()
        cdef cbool out
        with nogil:
            out = node.fuse_ended(fuse)
        return bool(out)

    def fuse_can_resend(self, uint64_t fuse):
        cdef CVolumeNode* node = self._open()
        cdef cbool out
        with nogil:
            out = node.fuse_can_resend(fuse)
        return bool(out)

    def fuse_stats(self, uint64_t fuse):
        cdef CVolumeNode* node = self._open()
        cdef FuseStats s
        with nogil:
            s = node.fuse_stats(fuse)
        return {"requests": s.requests, "errors": s.errors, "read_bytes": s.read_bytes, "written_bytes": s.written_bytes,
                "resent": s.resent, "inflight": s.inflight}

    def fuse_stop(self, uint64_t fuse):
        cdef CVolumeNode* node = self._open()
        with nogil:
            node.fuse_stop(fuse)

    def nbd_serve(self, uint64_t volume, int fd, bint read_only):
        """The export, for the kernel that has the other end of `fd` (taken over). `volume` 0: every request fails."""
        cdef CVolumeNode* node = self._open()
        cdef uint64_t device = 0
        cdef Error error
        cdef cbool good
        with nogil:
            good = node_nbd_serve(node[0], volume, fd, read_only, device, error)
        if not good:
            raise native_error(code_number(error.code), error.message.decode())
        return device

    def nbd_ended(self, uint64_t device):
        cdef CVolumeNode* node = self._open()
        cdef cbool out
        with nogil:
            out = node.nbd_ended(device)
        return bool(out)

    def nbd_device_stats(self, uint64_t device):
        cdef CVolumeNode* node = self._open()
        cdef NbdDeviceStats s
        with nogil:
            s = node.nbd_device_stats(device)
        return {"requests": s.requests, "errors": s.errors, "read_bytes": s.read_bytes, "written_bytes": s.written_bytes,
                "resent": 0, "inflight": s.inflight}

    def nbd_stop(self, uint64_t device):
        cdef CVolumeNode* node = self._open()
        with nogil:
            node.nbd_stop(device)

    def nbd_flags(self, bint read_only):
        """What the exports can do, as the protocol's transmission flags."""
        return transmission_flags(read_only)

    def open_and_close_device(self, str path):
        """Exclusively. Raises BusyError while it is mounted, NotFoundError."""
        cdef string text = path.encode()
        cdef Outcome outcome
        with nogil:
            outcome = open_and_close_device(text)
        _raise(outcome)

    def loop_grow(self, uint32_t number):
        cdef Outcome outcome
        with nogil:
            outcome = grow_loop(number)
        _raise(outcome)

    def loop_detach(self, uint32_t number, str uuid, bint force):
        cdef string text = uuid.encode()
        cdef Outcome outcome
        with nogil:
            outcome = detach_loop(number, text, force)
        _raise(outcome)

    def loop_identity(self, uint32_t number):
        return loop_identity(number).decode()

    def loop_size_bytes(self, uint32_t number):
        return loop_size_bytes(number)

    def close(self):
        """Closes everything; waits for what is in flight. Idempotent."""
        cdef CVolumeNode* node = self._node.get()
        if node == NULL:
            return
        with nogil:
            node.stop()
        self._node.reset()
        self._pinned.clear()
