// One authenticated connection: handshake, frames in, frames out. Used by clients, chunkservers and
// metaservers alike. Receiving: frames are parsed from one receive buffer; a payload of 32 KiB or
// more is received straight into its aligned buffer. Sending: frames are queued and leave with one
// send per turn; payloads are referenced, never copied. Invariants: no handler runs before the peer
// proved to hold the secret; at most kUnauthenticatedBytesMax are held for it, and
// kHandshakeTimeoutNs later it is closed. After close() nothing that was received and not yet
// handled is handled (R13). Thread: the loop's. Nothing blocks.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "native/base/buffer.h"
#include "native/base/list.h"
#include "native/io/io.h"
#include "native/wire/frame.h"
#include "native/wire/frame_assembler.h"

namespace curve::wire {

class Connection;

struct ConnectionHandler {
  void* owner = nullptr;
  // The peer is authenticated (both ways). Return false to refuse it (call Connection::refuse()
  // before to tell it why). Frames may be sent from here on.
  bool (*opened)(void* owner, Connection* connection) = nullptr;
  void (*frame)(void* owner, Connection* connection, Frame& frame) = nullptr;
  // The last call for this connection; once, also when it never opened. `code`: kDisconnected,
  // kTimeout, kUnauthenticated, kInvalid, kVersion, kIo (with errno in `error`), kCancelled (closed
  // or refused by us), or the code of the peer's refusal. The connection deletes itself afterwards.
  void (*closed)(void* owner, Connection* connection, Code code, int error) = nullptr;
};

struct Identity {  // what this side says of itself
  PeerRole role = PeerRole::kClient;
  StoreId id;
  uint64_t incarnation = 0;
  std::span<const std::byte> secret;  // outlives the connections
};

class Connection : public base::ListHook {
 public:
  // `counter`: HelloBody::connection. closed() follows if it does not succeed.
  static Connection* dial(io::Loop& loop, base::BufferPool& pool, const io::Address& to,
                          const Identity& self, const StoreId& wanted, uint64_t counter,
                          const ConnectionHandler& handler);
  // Takes the stream of an accepted connection. `unauthenticated_max` of them at a time is the
  // caller's business.
  static Connection* accept(io::Loop& loop, base::BufferPool& pool, io::Stream* stream,
                            const Identity& self, const ConnectionHandler& handler);

  // Queues a frame. `body` in up to two parts is copied (small), the payload is referenced:
  // `payload` may be a part of a buffer [offset, offset + bytes). The frame leaves at the end of
  // this turn or when the send before has ended. Dropped when the connection is not open.
  void send(FrameType type, uint64_t tag, std::span<const std::byte> body,
            std::span<const std::byte> body2 = {}, const base::Buffer& payload = {},
            uint32_t payload_offset = 0, uint32_t payload_bytes = 0);
  size_t queued_bytes() const;  // not yet handed to the kernel
  void pause();  // stop receiving (back-pressure); frames already received are handed out first on
                 // resume
  void resume();
  void refuse(Code code, std::string_view reason);  // sends kRefused, then closes
  void close();  // no frame is handed out any more; closed() is called later, from the loop
  // Only after Loop::abandon(), for every connection whose closed() has not run: deletes it at
  // once, calls nothing.
  void destroy();

  bool is_open() const;
  bool was_open() const;  // the handshake had succeeded
  PeerRole peer_role() const;
  const StoreId& peer_id() const;
  uint64_t peer_incarnation() const;
  uint64_t peer_counter() const;     // HelloBody::connection
  std::string peer_text() const;     // address, for logs
  uint64_t last_receive_ns() const;  // loop time of the last byte
  void* user = nullptr;              // of the handler's owner

 private:
  struct State;
  std::unique_ptr<State> state_;
  Connection(io::Loop& loop, base::BufferPool& pool, const Identity& self,
             const ConnectionHandler& handler);
  ~Connection();
};

}  // namespace curve::wire
