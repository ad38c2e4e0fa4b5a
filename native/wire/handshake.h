// The proofs of the handshake (docs/formats/wire.md): who answers for which bytes. Pure functions,
// any thread. Invariants: the two proofs have different labels, so none can be reflected as the
// other; each covers both nonces and both identities, so none can be replayed; macs are compared in
// constant time.
#pragma once

#include <span>

#include "native/wire/frame.h"

namespace curve::wire {

void prove_acceptor(std::span<const std::byte> secret, const HelloBody& hello,
                    ChallengeBody& challenge);
bool acceptor_proved(std::span<const std::byte> secret, const HelloBody& hello,
                     const ChallengeBody& challenge);
void prove_dialer(std::span<const std::byte> secret, const HelloBody& hello,
                  const ChallengeBody& challenge, ProofBody& proof);
bool dialer_proved(std::span<const std::byte> secret, const HelloBody& hello,
                   const ChallengeBody& challenge, const ProofBody& proof);

}  // namespace curve::wire
