// See hmac.h. The algorithm object is fetched once per process; contexts are per call.
#include "native/base/hmac.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/rand.h>

#include <cstdio>
#include <cstdlib>
#include <memory>

namespace curve::base {
namespace {

void require(bool ok, const char* what) {
  if (ok) return;
  std::fprintf(stderr, "libcrypto: %s failed\n", what);
  std::abort();
}

EVP_MAC* hmac_algorithm() {
  static EVP_MAC* const mac = EVP_MAC_fetch(nullptr, "HMAC", nullptr);
  require(mac != nullptr, "EVP_MAC_fetch");
  return mac;
}

struct FreeContext {
  void operator()(EVP_MAC_CTX* context) const { EVP_MAC_CTX_free(context); }
};

}  // namespace

Digest hmac_sha256(std::span<const std::byte> key,
                   std::initializer_list<std::span<const std::byte>> parts) {
  const std::unique_ptr<EVP_MAC_CTX, FreeContext> context(EVP_MAC_CTX_new(hmac_algorithm()));
  require(context != nullptr, "EVP_MAC_CTX_new");
  char digest_name[] = "SHA256";
  const OSSL_PARAM parameters[] = {
      OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest_name, 0),
      OSSL_PARAM_construct_end()};
  static constexpr unsigned char kNoKey[1] = {};  // a null key means "keep the last one"
  const auto* key_bytes = key.empty() ? kNoKey : reinterpret_cast<const unsigned char*>(key.data());
  require(EVP_MAC_init(context.get(), key_bytes, key.size(), parameters) == 1, "EVP_MAC_init");
  for (auto part : parts) {
    require(EVP_MAC_update(context.get(), reinterpret_cast<const unsigned char*>(part.data()),
                           part.size()) == 1,
            "EVP_MAC_update");
  }
  Digest out{};
  size_t length = 0;
  require(
      EVP_MAC_final(context.get(), out.data(), &length, out.size()) == 1 && length == out.size(),
      "EVP_MAC_final");
  return out;
}

bool constant_time_equal(std::span<const std::byte> a, std::span<const std::byte> b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

void secure_random(std::span<std::byte> out) {
  require(
      RAND_bytes(reinterpret_cast<unsigned char*>(out.data()), static_cast<int>(out.size())) == 1,
      "RAND_bytes");
}

}  // namespace curve::base
