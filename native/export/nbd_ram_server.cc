// NBD server over memory, for nbd_tools_test.sh: nbd_ram_server ADDRESS NAME:BYTES[:ro]... Prints
// "ready ADDRESS", serves until its standard input ends.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "native/export/nbd_server.h"
#include "native/export/ram_device.h"

int main(int argc, char** argv) {
  using namespace curve;
  if (argc < 3) {
    std::fprintf(stderr, "usage: nbd_ram_server ADDRESS NAME:BYTES[:ro]...\n");
    return 2;
  }
  auto loop = io::make_loop();
  if (!loop) {
    std::fprintf(stderr, "%s\n", loop.error().message.c_str());
    return 1;
  }
  base::BufferPool pool;
  auto server = exports::NbdServer::listen(**loop, pool, {argv[1]});
  if (!server) {
    std::fprintf(stderr, "%s\n", server.error().message.c_str());
    return 1;
  }
  std::vector<std::unique_ptr<exports::RamDevice>> devices;
  for (int i = 2; i < argc; ++i) {
    const std::string text = argv[i];
    const size_t colon = text.find(':');
    exports::NbdExport what;
    what.name = text.substr(0, colon);
    what.description = "memory";
    what.read_only = text.ends_with(":ro");
    devices.push_back(std::make_unique<exports::RamDevice>(
        **loop, std::strtoull(text.c_str() + colon + 1, nullptr, 10)));
    what.device = devices.back().get();
    if ((*server)->add_export(what) != Code::kOk) return 2;
  }
  std::printf("ready %s\n", (*server)->address().text.c_str());
  std::fflush(stdout);
  struct Stop : io::Mail {
    exports::NbdServer* server;
    io::Loop* loop;
  } stop;
  stop.server = server->get();
  stop.loop = loop->get();
  stop.run = [](io::Mail* mail) {
    auto* s = static_cast<Stop*>(mail);
    s->server->close([loop = s->loop] { loop->stop(); });
  };
  std::thread input([&] {
    char byte;
    while (read(STDIN_FILENO, &byte, 1) > 0) {
    }
    (*loop)->post(&stop);
  });
  (*loop)->run();
  input.join();
  server->reset();
  return pool.used_bytes() == 0 ? 0 : 3;
}
