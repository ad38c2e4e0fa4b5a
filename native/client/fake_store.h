// A chunkserver's outside without its inside, for tests of the client's error paths: three of them
// share one `Truth` (who leads in which term, and the bytes), and a test says how each answers. It
// keeps R13's duties as a chunkserver must: a newer connection shuts the older one; a change is
// taken only in its term. Test code only.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "native/base/crc32c.h"
#include "native/client/volume_client.h"
#include "native/wire/codec.h"
#include "native/wire/connection.h"

namespace curve::client {

struct Truth {
  struct Lead {
    int store = 0;
    Term term = 1;
  };
  std::map<CopysetId, Lead> leads;
  std::map<uint32_t, std::vector<std::byte>> chunks;  // 16 MiB each
  std::map<uint32_t, std::vector<bool>> written;      // by sector
  uint64_t changes = 0;
};

class FakeStore : public io::Listener {
 public:
  enum class Answer { kNormal, kSilent, kReset, kBadData };
  struct Request {
    wire::FrameType type;
    wire::RequestBody body;
    uint64_t tag;
    wire::Connection* connection;
  };
  struct Decision {
    Answer answer = Answer::kNormal;
    Code code = Code::kOk;  // else: this, without doing anything
    StoreId hint = {};
    Term term = 0;
  };

  FakeStore(io::Loop& loop, base::BufferPool& pool, Truth& truth, int number,
            std::span<const std::byte> secret)
      : loop_(loop), pool_(pool), truth_(truth), number_(number) {
    identity_.role = wire::PeerRole::kStore;
    identity_.id = id_of(number);
    identity_.secret = secret;
    start();
  }
  static StoreId id_of(int number) {
    StoreId id;
    id.bytes.fill(static_cast<uint8_t>(100 + number));
    return id;
  }
  void start() {
    auto bound = loop_.listen({address_.text.empty() ? "127.0.0.1:0" : address_.text}, this);
    ASSERT_TRUE(bound.ok()) << bound.error().message;
    address_ = *bound;
  }
  void stop() {  // as SIGKILL does
    loop_.close_listener(this);
    const auto open = connections_;
    for (auto* connection : open) connection->close();
  }
  const io::Address& address() const { return address_; }
  const std::vector<wire::Connection*>& connections() const { return connections_; }

  std::function<Decision(const Request&)> decide;
  std::vector<Request> seen;  // every request
  uint64_t highest_counter = 0;

  void accepted(io::Stream* stream) override {
    wire::ConnectionHandler handler;
    handler.owner = this;
    handler.opened = [](void* owner, wire::Connection* c) {
      return static_cast<FakeStore*>(owner)->opened(c);
    };
    handler.frame = [](void* owner, wire::Connection* c, wire::Frame& f) {
      static_cast<FakeStore*>(owner)->on_frame(c, f);
    };
    handler.closed = [](void* owner, wire::Connection* c, Code, int) {
      std::erase(static_cast<FakeStore*>(owner)->connections_, c);
    };
    wire::Connection::accept(loop_, pool_, stream, identity_, handler);
  }
  // Does what the request says and answers, however late.
  void serve(const Request& request, const std::vector<std::byte>& crcs,
             const base::Buffer& payload, bool bad = false) {
    wire::ReplyBody reply;
    auto& lead = truth_.leads[request.body.copyset];
    reply.term = lead.term;
    reply.leader = id_of(lead.store);
    if (lead.store != number_) return answer(request, Code::kNotLeader, reply);
    const bool change =
        request.type == wire::FrameType::kWrite || request.type == wire::FrameType::kZero;
    if (change && request.body.term != lead.term) return answer(request, Code::kWrongTerm, reply);
    auto& chunk = truth_.chunks[request.body.chunk];
    auto& written = truth_.written[request.body.chunk];
    if (chunk.empty() && request.type != wire::FrameType::kProbe) {
      chunk.resize(kChunkBytes);
      written.resize(kSectorsPerChunk);
    }
    const auto& b = request.body;
    switch (request.type) {
      case wire::FrameType::kWrite: {
        check_write(b, crcs, payload);
        std::memcpy(chunk.data() + b.offset_bytes, payload.data(), b.bytes);
        for (uint32_t s = b.offset_bytes / kSectorBytes;
             s <= (b.offset_bytes + b.bytes - 1) / kSectorBytes; ++s)
          written[s] = true;
        ++truth_.changes;
        break;
      }
      case wire::FrameType::kZero:
        EXPECT_EQ(b.offset_bytes % kSectorBytes + b.bytes % kSectorBytes, 0u);
        std::memset(chunk.data() + b.offset_bytes, 0, b.bytes);
        for (uint32_t s = 0; s < b.bytes / kSectorBytes; ++s)
          written[b.offset_bytes / kSectorBytes + s] = false;
        ++truth_.changes;
        break;
      case wire::FrameType::kRead: {
        EXPECT_EQ(b.offset_bytes % kSectorBytes + b.bytes % kSectorBytes, 0u);
        auto data = pool_.take(b.bytes);
        std::memcpy(data.data(), chunk.data() + b.offset_bytes, b.bytes);
        std::vector<uint32_t> sums;
        for (uint32_t at = 0; at < b.bytes; at += kSectorBytes)
          sums.push_back(base::crc32c(data.bytes().subspan(at, kSectorBytes)));
        if (bad) data.data()[b.bytes / 2] ^= std::byte{1};
        request.connection->send(wire::FrameType::kReply, request.tag, wire::body_bytes(reply),
                                 std::as_bytes(std::span(sums)), data, 0, b.bytes);
        return;
      }
      case wire::FrameType::kBlockStatus: {
        std::vector<uint8_t> bits((b.bytes / kSectorBytes + 7) / 8);
        for (uint32_t s = 0; s < b.bytes / kSectorBytes; ++s)
          bits[s / 8] |=
              static_cast<uint8_t>(written[b.offset_bytes / kSectorBytes + s] << (s % 8));
        request.connection->send(wire::FrameType::kReply, request.tag, wire::body_bytes(reply),
                                 std::as_bytes(std::span(bits)));
        return;
      }
      default:
        break;
    }
    answer(request, Code::kOk, reply);
  }
  void answer(const Request& request, Code code, wire::ReplyBody reply = {}) {
    reply.code = static_cast<uint16_t>(code);
    request.connection->send(wire::FrameType::kReply, request.tag, wire::body_bytes(reply));
  }

 private:
  bool opened(wire::Connection* connection) {
    EXPECT_EQ(connection->peer_role(), wire::PeerRole::kClient);
    EXPECT_GT(connection->peer_counter(), highest_counter);  // R13
    highest_counter = connection->peer_counter();
    const auto older = connections_;
    for (auto* c : older) c->close();
    connections_.push_back(connection);
    return true;
  }
  void on_frame(wire::Connection* connection, wire::Frame& frame) {
    Request request{frame.type, {}, frame.tag, connection};
    ASSERT_TRUE(wire::load_body(frame.body, request.body));
    seen.push_back(request);
    Decision decision;
    if (decide) decision = decide(request);
    if (decision.answer == Answer::kSilent) return;
    if (decision.answer == Answer::kReset) return connection->close();
    if (decision.code != Code::kOk) {
      wire::ReplyBody reply;
      reply.leader = decision.hint;
      reply.term = decision.term;
      return answer(request, decision.code, reply);
    }
    const auto crcs = frame.body.subspan(sizeof(wire::RequestBody));
    serve(request, std::vector<std::byte>(crcs.begin(), crcs.end()), frame.payload,
          decision.answer == Answer::kBadData);
  }
  void check_write(const wire::RequestBody& b, const std::vector<std::byte>& crcs,
                   const base::Buffer& payload) {
    ASSERT_EQ(payload.size(), b.bytes);
    ASSERT_LE(b.offset_bytes + b.bytes, kChunkBytes);
    uint32_t at = 0, n = 0;
    while (at < b.bytes) {
      const uint32_t take =
          std::min(kSectorBytes - (b.offset_bytes + at) % kSectorBytes, b.bytes - at);
      uint32_t crc;
      ASSERT_LE((n + 1) * sizeof(crc), crcs.size());
      std::memcpy(&crc, crcs.data() + n * sizeof(crc), sizeof(crc));
      EXPECT_EQ(base::crc32c(payload.bytes().subspan(at, take)), crc);
      at += take;
      ++n;
    }
    EXPECT_EQ(crcs.size(), n * sizeof(uint32_t));
  }

  io::Loop& loop_;
  base::BufferPool& pool_;
  Truth& truth_;
  int number_;
  wire::Identity identity_;
  io::Address address_;
  std::vector<wire::Connection*> connections_;
};

}  // namespace curve::client
