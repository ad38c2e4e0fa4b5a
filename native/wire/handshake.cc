// See handshake.h.
#include "native/wire/handshake.h"

#include <cstring>
#include <string_view>

#include "native/base/hmac.h"
#include "native/wire/codec.h"

namespace curve::wire {
namespace {

base::Digest proof_of(std::string_view label, std::span<const std::byte> secret,
                      const HelloBody& hello, const ChallengeBody& challenge) {
  return base::hmac_sha256(secret, {std::as_bytes(std::span(label)), body_bytes(hello),
                                    std::as_bytes(std::span(challenge.nonce)),
                                    std::as_bytes(std::span(challenge.identity.bytes))});
}

base::Digest acceptor_mac(std::span<const std::byte> secret, const HelloBody& hello,
                          const ChallengeBody& challenge) {
  return proof_of("curve-acceptor-1", secret, hello, challenge);
}

base::Digest dialer_mac(std::span<const std::byte> secret, const HelloBody& hello,
                        const ChallengeBody& challenge) {
  return proof_of("curve-dialer-1", secret, hello, challenge);
}

bool equal(const base::Digest& expected, std::span<const uint8_t> got) {
  return base::constant_time_equal(std::as_bytes(std::span(expected)), std::as_bytes(got));
}

}  // namespace

void prove_acceptor(std::span<const std::byte> secret, const HelloBody& hello,
                    ChallengeBody& challenge) {
  const base::Digest mac = acceptor_mac(secret, hello, challenge);
  std::memcpy(challenge.mac, mac.data(), sizeof(challenge.mac));
}

bool acceptor_proved(std::span<const std::byte> secret, const HelloBody& hello,
                     const ChallengeBody& challenge) {
  return equal(acceptor_mac(secret, hello, challenge), challenge.mac);
}

void prove_dialer(std::span<const std::byte> secret, const HelloBody& hello,
                  const ChallengeBody& challenge, ProofBody& proof) {
  const base::Digest mac = dialer_mac(secret, hello, challenge);
  std::memcpy(proof.mac, mac.data(), sizeof(proof.mac));
}

bool dialer_proved(std::span<const std::byte> secret, const HelloBody& hello,
                   const ChallengeBody& challenge, const ProofBody& proof) {
  return equal(dialer_mac(secret, hello, challenge), proof.mac);
}

}  // namespace curve::wire
