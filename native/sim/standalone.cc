#include "native/sim/standalone.h"

namespace curve::sim {

World& standalone_world() {
  static thread_local World world(1);
  return world;
}

}  // namespace curve::sim
