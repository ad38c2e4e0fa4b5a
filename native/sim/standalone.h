// The world behind io::make_loop() when nobody made one: for unit tests that are linked with
// curve_io_sim and drive a loop by Loop::run(). One per thread, no injected faults.
#pragma once

#include "native/sim/world.h"

namespace curve::sim {

World& standalone_world();

}  // namespace curve::sim
