// A connected stream socket that somebody else has made (one end of a socketpair, say) as a stream
// of this loop. Of the real world only (curve_io_uring): the simulation has no descriptors.
// Thread: the loop's.
#pragma once

#include <string>

#include "native/io/io.h"

namespace curve::io {

// `fd` is owned from now on. `peer` is what logs call the other side.
Stream* adopt_stream(Loop& loop, int fd, std::string peer);

}  // namespace curve::io
