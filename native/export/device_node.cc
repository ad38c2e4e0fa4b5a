#include "native/export/device_node.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "native/export/apart.h"

namespace curve::exports {

Outcome open_and_close_device(const std::string& path) {
  const int result = run_apart(-1, [&] {
    const int fd = open(path.c_str(), O_RDONLY | O_EXCL | O_CLOEXEC);
    if (fd < 0) return -errno;
    close(fd);
    return 0;
  });
  if (result >= 0) return {};
  const Code code = result == -EBUSY                        ? Code::kBusy
                    : result == -ENOENT || result == -ENXIO ? Code::kNotFound
                                                            : Code::kIo;
  return Error{code, path + ": " + std::strerror(-result)};
}

}  // namespace curve::exports
