#include "relay/pass.h"

#include <sodium.h>

#include <algorithm>
#include <vector>

#include "base/digest.h"
#include "base/identity.h"
#include "base/little_endian.h"

namespace isthmus::relay {

namespace {

constexpr std::string_view kLabel = "isthmus relay pass";
constexpr std::string_view kForm = "isthmus-relay1";

std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> words;
  while (true) {
    const auto from = text.find_first_not_of(" \t\r\n");
    if (from == text.npos) return words;
    const auto to = std::min(text.find_first_of(" \t\r\n", from), text.size());
    words.emplace_back(text.substr(from, to - from));
    text.remove_prefix(to);
  }
}

}  // namespace

Key new_key() {
  Key key;
  randombytes_buf(key.data(), key.size());
  return key;
}

Result<Key> keep_key(const std::string& path) {
  // Kept as every secret of this program is; what is derived from it tells nothing about it.
  const auto identity = Identity::keep(path);
  if (!identity) return tl::unexpected(identity.error());
  const auto secret = identity->curve_secret();
  Key key;
  crypto_generichash(key.data(), key.size(), reinterpret_cast<const unsigned char*>(kForm.data()), kForm.size(),
                     secret.data(), secret.size());
  return key;
}

Pass make_pass(const Key& key, std::uint64_t run_id, PeerId peer, std::uint64_t expires_s) {
  Bytes message(kLabel.begin(), kLabel.end());
  append_le(message, run_id);
  append_le(message, peer.value);
  append_le(message, expires_s);
  Pass pass{run_id, peer, expires_s, {}};
  crypto_generichash(pass.secret.data(), pass.secret.size(), message.data(), message.size(), key.data(), key.size());
  return pass;
}

std::string relay_text(const RelayName& relay) {
  return fmt::format("{} {} {}", kForm, relay.address, to_hex(relay.key));
}

Result<RelayName> read_relay(std::string_view text) {
  const auto words = words_of(text);
  RelayName relay;
  if (words.size() != 3 || words[0] != kForm || words[1].find(':') == words[1].npos || !from_hex(words[2], relay.key))
    return fail("this is no relay's name; expected what `isthmus relay` printed: {} ADDRESS:PORT KEY", kForm);
  relay.address = words[1];
  return relay;
}

}  // namespace isthmus::relay
