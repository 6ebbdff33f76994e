#include "relay/hello.h"

#include <sodium.h>

#include <algorithm>

#include "base/little_endian.h"

namespace isthmus::relay {

namespace {

constexpr std::array<std::uint8_t, 4> kMagic = {'I', 'S', 'T', 'R'};
constexpr std::size_t kProofBytes = 32, kSaidBytes = kHelloBytes - kProofBytes;

std::array<std::uint8_t, kProofBytes> proof_of(ByteView said, const Pass& pass, const Nonce& nonce) {
  Bytes message(nonce.begin(), nonce.end());
  message.insert(message.end(), said.begin(), said.end());
  std::array<std::uint8_t, kProofBytes> proof;
  crypto_generichash(proof.data(), proof.size(), message.data(), message.size(), pass.secret.data(),
                     pass.secret.size());
  return proof;
}

bool takes_magic(ByteView& bytes) {
  if (bytes.size() < kMagic.size() || !std::ranges::equal(bytes.first(kMagic.size()), kMagic)) return false;
  bytes = bytes.subspan(kMagic.size());
  return true;
}

}  // namespace

const char* sentence(Verdict verdict) {
  switch (verdict) {
    case Verdict::kWelcome:
      return "welcome";
    case Verdict::kOtherVersion:
      return "it speaks another version";
    case Verdict::kNoProof:
      return "it does not take this run's passes";
    case Verdict::kExpired:
      return "the pass has expired; do the relay's and the coordinator's clocks agree?";
    case Verdict::kTooMany:
      return "it has as many connections of this peer or address as it takes";
    case Verdict::kAbsent:
      return "the other worker has not called there";
    case Verdict::kGone:
      return "the other worker has hung up";
  }
  return "it says what no relay says";
}

Bytes encode_greeting(const Greeting& greeting) {
  Bytes bytes(kMagic.begin(), kMagic.end());
  bytes.push_back(kVersion);
  bytes.insert(bytes.end(), 3, 0);
  bytes.insert(bytes.end(), greeting.nonce.begin(), greeting.nonce.end());
  bytes.insert(bytes.end(), greeting.address.begin(), greeting.address.end());
  append_le(bytes, greeting.port);
  return bytes;
}

std::optional<Greeting> decode_greeting(ByteView bytes) {
  if (bytes.size() != kGreetingBytes || !takes_magic(bytes) || bytes[0] != kVersion) return std::nullopt;
  bytes = bytes.subspan(4);
  Greeting greeting;
  std::ranges::copy(bytes.first(kNonceBytes), greeting.nonce.begin());
  bytes = bytes.subspan(kNonceBytes);
  std::ranges::copy(bytes.first(greeting.address.size()), greeting.address.begin());
  bytes = bytes.subspan(greeting.address.size());
  greeting.port = *take_le<std::uint16_t>(bytes);
  return greeting;
}

Bytes encode_hello(const Hello& hello, const Pass& pass, const Nonce& nonce) {
  Bytes bytes(kMagic.begin(), kMagic.end());
  bytes.push_back(kVersion);
  bytes.push_back(static_cast<std::uint8_t>(hello.kind));
  bytes.push_back(hello.lane);
  bytes.push_back(0);
  append_le(bytes, hello.run_id);
  append_le(bytes, hello.from.value);
  append_le(bytes, hello.to.value);
  append_le(bytes, hello.call);
  append_le(bytes, hello.expires_s);
  const auto proof = proof_of(bytes, pass, nonce);
  bytes.insert(bytes.end(), proof.begin(), proof.end());
  return bytes;
}

Checked check_hello(ByteView bytes, const Key& key, const Nonce& nonce, std::uint64_t now_s) {
  if (bytes.size() != kHelloBytes) return {Verdict::kNoProof};
  const ByteView said = bytes.first(kSaidBytes), proof = bytes.last(kProofBytes);
  if (!takes_magic(bytes)) return {Verdict::kNoProof};
  if (bytes[0] != kVersion) return {Verdict::kOtherVersion};
  Hello hello;
  hello.kind = static_cast<Kind>(bytes[1]);
  hello.lane = bytes[2];
  bytes = bytes.subspan(4);
  hello.run_id = *take_le<std::uint64_t>(bytes);
  hello.from = PeerId(*take_le<std::uint32_t>(bytes));
  hello.to = PeerId(*take_le<std::uint32_t>(bytes));
  hello.call = *take_le<std::uint64_t>(bytes);
  hello.expires_s = *take_le<std::uint64_t>(bytes);
  const auto expected = proof_of(said, make_pass(key, hello.run_id, hello.from, hello.expires_s), nonce);
  if (crypto_verify_32(expected.data(), proof.data()) != 0) return {Verdict::kNoProof};
  if (hello.kind < Kind::kRegister || hello.kind > Kind::kAccept || hello.lane > 1) return {Verdict::kOtherVersion};
  if (hello.expires_s < now_s) return {Verdict::kExpired};
  return {Verdict::kWelcome, hello};
}

Bytes encode_ring(const Ring& ring) {
  Bytes bytes = {ring.lane, 0, 0, 0};
  append_le(bytes, ring.from.value);
  append_le(bytes, ring.call);
  return bytes;
}

std::optional<Ring> decode_ring(ByteView bytes) {
  if (bytes.size() != kRingBytes || bytes[0] > 1) return std::nullopt;
  Ring ring;
  ring.lane = bytes[0];
  bytes = bytes.subspan(4);
  ring.from = PeerId(*take_le<std::uint32_t>(bytes));
  ring.call = *take_le<std::uint64_t>(bytes);
  return ring;
}

}  // namespace isthmus::relay
