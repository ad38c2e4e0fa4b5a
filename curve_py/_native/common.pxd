# What the extension modules share: native values, error translation. The extension translates, validates and releases the
# GIL; everything pleasant is Python.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libcpp cimport bool as cbool
from libcpp.memory cimport unique_ptr
from libcpp.string cimport string
from libcpp.vector cimport vector


cdef extern from "native/base/types.h" namespace "curve" nogil:
    cdef cppclass StoreId:
        StoreId()


cdef extern from "native/base/status.h" namespace "curve" nogil:
    cdef enum class Code(uint16_t):
        kOk
        kExists
        kNotFound
    cdef cppclass Error:
        Code code
        string message
    cdef cppclass Outcome:
        cbool ok()
        Error& error()


cdef extern from "curve_py/_native/glue.h" namespace "curve::glue" nogil:
    StoreId store_id_from(const char* bytes)
    string store_id_bytes(const StoreId& store_id)
    int code_number(Code code)
