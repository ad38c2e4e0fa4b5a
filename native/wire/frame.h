// Frames of the data protocol: a 24-byte header, a body (fixed structs below, then arrays), a
// payload of data bytes. Format page: docs/formats/wire.md (changes in the same commit).
// Little-endian, packed by construction, version 1. Invariants: header and body are covered by
// `crc`; payloads by the CRC32C values in the body. Values from a peer are checked before use; a
// malformed frame closes the connection with a logged sentence. Any thread.
#pragma once

#include <cstdint>

#include "native/base/types.h"

namespace curve::wire {

inline constexpr uint16_t kMagic = 0xC5B7;
inline constexpr uint8_t kVersion = 1;
inline constexpr uint32_t kBodyBytesMax = 256 * 1024;
inline constexpr uint32_t kPayloadBytesMax = kIoBytesMax;
inline constexpr uint32_t kUnauthenticatedBytesMax =
    4096;  // all that is held for a peer that has not proved the secret
inline constexpr uint64_t kHandshakeTimeoutNs = 2'000'000'000;

enum class FrameType : uint8_t {
  // handshake
  kHello = 1,
  kChallenge = 2,
  kProof = 3,
  kWelcome = 4,
  kRefused = 5,
  // client -> chunkserver
  kRead = 16,
  kWrite = 17,
  kZero = 18 /* discard and write-zeroes */,
  kBlockStatus = 19,
  kProbe = 20,
  kTrace = 21,  // behind an answer that asks for it; one way
  // chunkserver -> client
  kReply = 32,
  // between stores
  kPeerMessage = 48,  // raft::Message without entries
  kPeerAppend = 49,   // one log entry (or none: probe)
  kPeerBeat = 50,
  kPeerBeatReply = 51,
  kPeerAppendReplies = 52,  // array
  kChunkDigest = 54,        // what a replica holds of a chunk at a log index
  kSyncRequest = 56,
  kSyncReply = 57,
  kRepairRequest = 58,  // sectors that one replica has lost (R11)
  kRepairReply = 59,
  kSnapshotChunk = 60,
  kSnapshotChunkReply = 61,  // metaserver state transfer
};

struct FrameHeader {
  uint16_t magic = kMagic;
  uint8_t version = kVersion;
  FrameType type{};
  uint32_t body_bytes = 0;
  uint32_t payload_bytes = 0;
  uint32_t crc = 0;  // CRC32C of the header with crc = 0, then the body
  uint64_t tag = 0;  // request id, echoed by the reply; 0 for one-way frames
};
static_assert(sizeof(FrameHeader) == 24);

// kRead, kWrite, kZero, kBlockStatus, kProbe: this, then for kWrite one CRC32C (u32) per sector
// touched, over the bytes of this request in that sector. kRead, kZero: sector-aligned. kWrite: any
// multiple of 512 bytes (R14 merges at the leader). kBlockStatus: sector-aligned, up to a chunk;
// the reply's body has one bit per sector (1: written), least significant first. kProbe: who leads?
// Only copyset counts.
struct RequestBody {
  uint64_t volume = 0;
  uint64_t epoch = 0;  // R12
  uint64_t copyset = 0;
  uint64_t term =
      0;  // R13: meant for this term of the leader; 0 (kRead, kProbe, kBlockStatus only): any
  uint32_t chunk = 0;
  uint32_t offset_bytes = 0;  // in the chunk
  uint32_t bytes = 0;
  uint32_t flags = 0;
};
static_assert(sizeof(RequestBody) == 48);
inline constexpr uint32_t kFlagMayUnmap =
    1;  // kZero: blocks may be given back (else they stay allocated if they are)

// kReply: this, then kRead: one CRC32C per sector and the data as payload; kBlockStatus: the bits.
struct ReplyBody {
  uint16_t code = 0;  // curve::Code
  uint16_t flags = 0;
  uint32_t reserved = 0;
  uint64_t term = 0;  // of the answering replica (kOk, kNotLeader, kWrongTerm, kProbe); also on kOk
                      // of a probe: it leads
  StoreId leader;     // hint; none if unknown
};
static_assert(sizeof(ReplyBody) == 32);
inline constexpr uint16_t kReplyTraced = 1;  // kWrite: send kTrace with this tag

// kTrace: what the client knows of a request that was answered.
struct TraceBody {
  uint64_t queue_ns = 0;  // from submit to send
  uint64_t away_ns = 0;   // from send to answer
};
static_assert(sizeof(TraceBody) == 16);

// Handshake (all frames together <= 4 KiB each way; 2 s). Both sides prove that they hold the
// cluster's secret:
//   dialer   -> kHello     {role, identity, identity of whom it wants, nonce_d}
//   acceptor -> kChallenge {nonce_a, identity of acceptor, mac_a = HMAC(secret, "curve-acceptor-1"
//   | hello | nonce_a | identity of acceptor)} dialer   -> kProof     {mac_d = HMAC(secret,
//   "curve-dialer-1" | hello | nonce_a | identity of acceptor)} acceptor -> kWelcome {incarnation}
enum class PeerRole : uint8_t { kClient = 1, kStore = 2, kMetaserver = 3 };
struct HelloBody {
  uint8_t role = 0;
  uint8_t reserved[7] = {};
  StoreId
      identity;    // of the dialer: store id, or a client's random id (one per open volume client)
  StoreId wanted;  // of the acceptor; none: any
  uint64_t connection =
      0;  // a client's counter; a higher one supersedes (R13: the old connection is shut first)
  uint64_t incarnation = 0;  // of a store
  uint8_t nonce[32] = {};
};
static_assert(sizeof(HelloBody) == 88);
struct ChallengeBody {
  StoreId identity;
  uint8_t nonce[32] = {};
  uint8_t mac[32] = {};
};
struct ProofBody {
  uint8_t mac[32] = {};
};
struct WelcomeBody {
  uint64_t incarnation = 0;
};
struct RefusedBody {  // then a sentence in UTF-8
  uint16_t code = 0;
};

}  // namespace curve::wire
