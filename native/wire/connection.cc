// See connection.h. State machine: kConnecting -> handshake phases -> kOpen -> kClosed; any phase
// may go to kRefusing (a last frame is on its way out) or kClosed. The object goes when no
// operation is in flight and closed() was called.
#include "native/wire/connection.h"

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <cstring>
#include <string_view>

#include "native/base/log.h"
#include "native/wire/codec.h"
#include "native/wire/handshake.h"
#include "native/wire/transmit_queue.h"

namespace curve::wire {
namespace {

enum class Phase : uint8_t {
  kConnecting,
  kAwaitHello,      // acceptor
  kAwaitProof,      // acceptor
  kAwaitChallenge,  // dialer
  kAwaitWelcome,    // dialer
  kOpen,
  kRefusing,
  kClosed,
};

constexpr size_t kSentenceBytesMax = 400;  // of a refusal

Code code_of_errno(int error) {
  switch (error) {
    case EPIPE:
    case ECONNRESET:
    case ECONNREFUSED:
    case ECONNABORTED:
    case ENOENT:  // a unix socket that is not there
    case ENOTCONN:
      return Code::kDisconnected;
    case ETIMEDOUT:
      return Code::kTimeout;
    default:
      return Code::kIo;
  }
}

}  // namespace

struct Connection::State {
  State(Connection* self, io::Loop& the_loop, base::BufferPool& pool, const Identity& identity,
        const ConnectionHandler& the_handler)
      : connection(self), loop(the_loop), self(identity), handler(the_handler), assembler(pool) {}

  Connection* connection;
  io::Loop& loop;
  Identity self;
  ConnectionHandler handler;
  Phase phase = Phase::kConnecting;
  bool dialer = false;
  bool paused = false;
  bool was_open = false;
  bool in_handler = false;  // frames are being handed out
  bool receiving = false, sending = false, connecting = false;
  bool close_announced = false;  // the deferred part of close() has begun
  Code close_code = Code::kCancelled;
  int close_error = 0;

  io::Stream* stream = nullptr;
  io::ConnectOp connect_op;
  io::Op receive_op, send_op;
  io::Timer handshake_timer;  // also bounds a refusal
  io::Timer later_timer;      // hands out frames after resume(), calls closed() after close()
  io::TurnHook turn_hook;

  FrameAssembler assembler;
  TransmitQueue transmit;
  HelloBody hello;          // sent or received
  ChallengeBody challenge;  // likewise
  PeerRole peer_role{};
  StoreId peer_id;
  std::string peer_text;
  uint64_t peer_incarnation = 0;
  uint64_t last_receive_ns = 0;

  void start(Phase first);
  void begin_receive();
  void received();
  void hand_out_frames();
  void flush();
  void push(FrameType type, std::span<const std::byte> body, std::span<const std::byte> body2 = {});
  void on_handshake_frame(const Frame& frame);
  void on_hello(const Frame& frame);
  void on_challenge(const Frame& frame);
  void on_proof(const Frame& frame);
  void on_welcome(const Frame& frame);
  void on_refused(const Frame& frame);
  void opened();
  void refuse(Code code, std::string_view reason);
  void malformed(const char* problem);
  void close(Code code, int error);
  void later();
  void finish_if_idle();
};

// ---- life cycle ----

Connection::Connection(io::Loop& loop, base::BufferPool& pool, const Identity& self,
                       const ConnectionHandler& handler)
    : state_(std::make_unique<State>(this, loop, pool, self, handler)) {
  State& s = *state_;
  s.connect_op.owner = s.receive_op.owner = s.send_op.owner = &s;
  s.handshake_timer.owner = s.later_timer.owner = s.turn_hook.owner = &s;
  s.receive_op.done = [](io::Op* op) { static_cast<State*>(op->owner)->received(); };
  s.send_op.done = [](io::Op* op) {
    auto& s = *static_cast<State*>(op->owner);
    s.sending = false;
    s.transmit.sent();
    if (s.phase == Phase::kClosed) return s.finish_if_idle();
    if (op->result < 0) return s.close(code_of_errno(-op->result), -op->result);
    if (s.phase == Phase::kRefusing && s.transmit.empty()) s.close(s.close_code, 0);
  };
  s.handshake_timer.fire = [](io::Timer* timer) {
    auto& s = *static_cast<State*>(timer->owner);
    s.close(s.phase == Phase::kRefusing ? s.close_code : Code::kTimeout, 0);
  };
  s.later_timer.fire = [](io::Timer* timer) { static_cast<State*>(timer->owner)->later(); };
  s.turn_hook.run = [](io::TurnHook* hook) { static_cast<State*>(hook->owner)->flush(); };
  loop.add_turn_hook(&s.turn_hook);
  loop.arm(&s.handshake_timer, loop.now_ns() + kHandshakeTimeoutNs);
}

Connection::~Connection() {
  State& s = *state_;
  unlink();
  s.loop.disarm(&s.handshake_timer);
  s.loop.disarm(&s.later_timer);
  s.loop.remove_turn_hook(&s.turn_hook);
}

Connection* Connection::dial(io::Loop& loop, base::BufferPool& pool, const io::Address& to,
                             const Identity& self, const StoreId& wanted, uint64_t counter,
                             const ConnectionHandler& handler) {
  auto* connection = new Connection(loop, pool, self, handler);
  State& s = *connection->state_;
  s.dialer = true;
  s.hello.role = static_cast<uint8_t>(self.role);
  s.hello.identity = self.id;
  s.hello.wanted = wanted;
  s.hello.connection = counter;
  s.hello.incarnation = self.incarnation;
  s.connecting = true;
  s.connect_op.done = [](io::Op* op) {
    auto& s = *static_cast<State*>(op->owner);
    s.connecting = false;
    if (s.phase == Phase::kClosed) {
      if (op->result == 0) s.connect_op.stream->close();
      return s.finish_if_idle();
    }
    if (op->result < 0) return s.close(code_of_errno(-op->result), -op->result);
    s.stream = s.connect_op.stream;
    s.start(Phase::kAwaitChallenge);
  };
  loop.connect(&s.connect_op, to);
  return connection;
}

Connection* Connection::accept(io::Loop& loop, base::BufferPool& pool, io::Stream* stream,
                               const Identity& self, const ConnectionHandler& handler) {
  auto* connection = new Connection(loop, pool, self, handler);
  connection->state_->stream = stream;
  connection->state_->start(Phase::kAwaitHello);
  return connection;
}

static void fill_random(io::Loop& loop, std::span<uint8_t> out) {
  for (size_t at = 0; at < out.size(); at += sizeof(uint64_t)) {
    const uint64_t value = loop.random_u64();
    std::memcpy(out.data() + at, &value, std::min(sizeof(value), out.size() - at));
  }
}

void Connection::State::start(Phase first) {
  phase = first;
  peer_text = stream->peer();
  last_receive_ns = loop.now_ns();
  if (dialer) {
    fill_random(loop, hello.nonce);
    push(FrameType::kHello, body_bytes(hello));
  }
  begin_receive();
}

void Connection::State::close(Code code, int error) {
  if (phase == Phase::kClosed) return;
  phase = Phase::kClosed;
  close_code = code;
  close_error = error;
  loop.disarm(&handshake_timer);
  if (connecting) loop.cancel_connect(&connect_op);
  if (stream) stream->close();
  stream = nullptr;
  transmit.drop_unsent();
  loop.arm(&later_timer, loop.now_ns());
}

void Connection::State::later() {
  if (phase == Phase::kClosed) {
    close_announced = true;
    return finish_if_idle();
  }
  hand_out_frames();
  if (phase == Phase::kOpen && !paused && !receiving) begin_receive();
}

void Connection::State::finish_if_idle() {
  if (!close_announced || connecting || receiving || sending) return;
  close_announced = false;
  Connection* const gone = connection;
  if (handler.closed) handler.closed(handler.owner, gone, close_code, close_error);
  delete gone;
}

// ---- receiving ----

void Connection::State::begin_receive() {
  const FrameAssembler::Window window = assembler.window();
  receiving = true;
  stream->receive(&receive_op, window.into, window.all);
}

void Connection::State::received() {
  receiving = false;
  if (phase == Phase::kClosed) return finish_if_idle();
  if (receive_op.result <= 0) {
    const int error = -receive_op.result;
    return close(error ? code_of_errno(error) : Code::kDisconnected, error);
  }
  last_receive_ns = loop.now_ns();
  assembler.received(static_cast<size_t>(receive_op.result));
  hand_out_frames();
  if (phase != Phase::kClosed && phase != Phase::kRefusing && !paused) begin_receive();
}

void Connection::State::hand_out_frames() {
  in_handler = true;
  while (!paused && phase != Phase::kClosed && phase != Phase::kRefusing) {
    Frame frame;
    const auto step = assembler.next(frame);
    if (step == FrameAssembler::Step::kMore) break;
    if (step == FrameAssembler::Step::kMalformed) {
      malformed(assembler.problem());
      break;
    }
    if (step == FrameAssembler::Step::kVersion) {
      refuse(Code::kVersion,
             "This end speaks version 1 of the data protocol; the frame has another.");
      close_code = Code::kVersion;
      break;
    }
    if (phase == Phase::kOpen && frame.type > FrameType::kRefused) {
      handler.frame(handler.owner, connection, frame);
    } else {
      on_handshake_frame(frame);
    }
  }
  in_handler = false;
}

void Connection::State::malformed(const char* problem) {
  base::log(base::LogLevel::kWarning, "connection_malformed",
            {{"peer", peer_text}, {"problem", std::string(problem)}});
  close(Code::kInvalid, 0);
}

// ---- handshake ----

void Connection::State::on_handshake_frame(const Frame& frame) {
  if (frame.type == FrameType::kRefused && (dialer || phase == Phase::kOpen))
    return on_refused(frame);
  if (phase == Phase::kAwaitHello && frame.type == FrameType::kHello) return on_hello(frame);
  if (phase == Phase::kAwaitChallenge && frame.type == FrameType::kChallenge)
    return on_challenge(frame);
  if (phase == Phase::kAwaitProof && frame.type == FrameType::kProof) return on_proof(frame);
  if (phase == Phase::kAwaitWelcome && frame.type == FrameType::kWelcome) return on_welcome(frame);
  malformed("a frame that has no place in this state of the connection");
}

static bool known_role(uint8_t role) {
  return role >= static_cast<uint8_t>(PeerRole::kClient) &&
         role <= static_cast<uint8_t>(PeerRole::kMetaserver);
}

void Connection::State::on_hello(const Frame& frame) {
  if (frame.body.size() != sizeof(hello) || !load_body(frame.body, hello) ||
      !known_role(hello.role))
    return malformed("a hello of the wrong form");
  if (!hello.wanted.is_none() && hello.wanted != self.id)
    return refuse(Code::kInvalid, "Another store lives at this address now.");
  if (hello.identity == self.id)
    return refuse(Code::kInvalid, "The hello names this store itself.");
  challenge.identity = self.id;
  fill_random(loop, challenge.nonce);
  prove_acceptor(self.secret, hello, challenge);
  push(FrameType::kChallenge, body_bytes(challenge));
  phase = Phase::kAwaitProof;
}

void Connection::State::on_challenge(const Frame& frame) {
  if (frame.body.size() != sizeof(challenge) || !load_body(frame.body, challenge))
    return malformed("a challenge of the wrong form");
  if (!acceptor_proved(self.secret, hello, challenge) || challenge.identity == self.id ||
      (!hello.wanted.is_none() && challenge.identity != hello.wanted)) {
    base::log(base::LogLevel::kWarning, "connection_unauthenticated",
              {{"peer", peer_text},
               {"problem", std::string("the server does not hold this cluster's secret")}});
    return close(Code::kUnauthenticated, 0);
  }
  ProofBody proof;
  prove_dialer(self.secret, hello, challenge, proof);
  push(FrameType::kProof, body_bytes(proof));
  phase = Phase::kAwaitWelcome;
}

void Connection::State::on_proof(const Frame& frame) {
  ProofBody proof;
  if (frame.body.size() != sizeof(proof) || !load_body(frame.body, proof))
    return malformed("a proof of the wrong form");
  if (!dialer_proved(self.secret, hello, challenge, proof)) {
    base::log(base::LogLevel::kWarning, "connection_unauthenticated",
              {{"peer", peer_text},
               {"problem", std::string("the peer does not hold this cluster's secret")}});
    refuse(Code::kUnauthenticated, "The peer does not hold this cluster's secret.");
    close_code = Code::kUnauthenticated;
    return;
  }
  peer_role = static_cast<PeerRole>(hello.role);
  peer_id = hello.identity;
  peer_incarnation = hello.incarnation;
  push(FrameType::kWelcome, body_bytes(WelcomeBody{self.incarnation}));
  opened();
}

void Connection::State::on_welcome(const Frame& frame) {
  WelcomeBody welcome;
  if (frame.body.size() != sizeof(welcome) || !load_body(frame.body, welcome))
    return malformed("a welcome of the wrong form");
  peer_role = self.role == PeerRole::kMetaserver ? PeerRole::kMetaserver : PeerRole::kStore;
  peer_id = challenge.identity;
  peer_incarnation = welcome.incarnation;
  opened();
}

void Connection::State::opened() {
  phase = Phase::kOpen;
  was_open = true;
  loop.disarm(&handshake_timer);
  assembler.authenticated();
  const bool admitted = !handler.opened || handler.opened(handler.owner, connection);
  if (!admitted && phase == Phase::kOpen) refuse(Code::kInvalid, "Not admitted.");
}

void Connection::State::on_refused(const Frame& frame) {
  RefusedBody body;
  if (!load_body(frame.body, body)) return malformed("a refusal of the wrong form");
  const auto sentence = frame.body.subspan(sizeof(body));
  std::string text(reinterpret_cast<const char*>(sentence.data()), sentence.size());
  std::replace_if(
      text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20; }, ' ');
  base::log(base::LogLevel::kWarning, "connection_refused",
            {{"peer", peer_text}, {"reason", std::move(text)}});
  close(body.code ? static_cast<Code>(body.code) : Code::kInvalid, 0);
}

// ---- sending ----

void Connection::State::push(FrameType type, std::span<const std::byte> body,
                             std::span<const std::byte> body2) {
  transmit.push(type, 0, body, body2, {}, 0, 0);
}

void Connection::State::flush() {
  if (sending || transmit.empty() || phase == Phase::kClosed) return;
  sending = true;
  stream->send(&send_op, transmit.begin_send());
}

void Connection::State::refuse(Code code, std::string_view reason) {
  if (phase == Phase::kClosed || phase == Phase::kRefusing) return;
  if (phase == Phase::kConnecting) return close(Code::kCancelled, 0);
  transmit.drop_unsent();  // a welcome of this turn is taken back
  const RefusedBody body{static_cast<uint16_t>(code)};
  push(FrameType::kRefused, body_bytes(body),
       std::as_bytes(std::span(reason.substr(0, kSentenceBytesMax))));
  phase = Phase::kRefusing;
  close_code = Code::kCancelled;
  loop.arm(&handshake_timer, loop.now_ns() + kHandshakeTimeoutNs);
}

// ---- public ----

void Connection::send(FrameType type, uint64_t tag, std::span<const std::byte> body,
                      std::span<const std::byte> body2, const base::Buffer& payload,
                      uint32_t payload_offset, uint32_t payload_bytes) {
  if (state_->phase != Phase::kOpen) return;
  state_->transmit.push(type, tag, body, body2, payload, payload_offset, payload_bytes);
}

size_t Connection::queued_bytes() const { return state_->transmit.bytes(); }

void Connection::pause() { state_->paused = true; }

void Connection::resume() {
  State& s = *state_;
  if (!s.paused) return;
  s.paused = false;
  if (s.phase == Phase::kOpen && !s.in_handler) s.loop.arm(&s.later_timer, s.loop.now_ns());
}

void Connection::refuse(Code code, std::string_view reason) { state_->refuse(code, reason); }
void Connection::close() { state_->close(Code::kCancelled, 0); }

void Connection::destroy() {
  assert(state_->loop.abandoned());
  delete this;
}

bool Connection::is_open() const { return state_->phase == Phase::kOpen; }
bool Connection::was_open() const { return state_->was_open; }
PeerRole Connection::peer_role() const { return state_->peer_role; }
const StoreId& Connection::peer_id() const { return state_->peer_id; }
uint64_t Connection::peer_incarnation() const { return state_->peer_incarnation; }
uint64_t Connection::peer_counter() const { return state_->hello.connection; }
std::string Connection::peer_text() const { return state_->peer_text; }
uint64_t Connection::last_receive_ns() const { return state_->last_receive_ns; }

}  // namespace curve::wire
