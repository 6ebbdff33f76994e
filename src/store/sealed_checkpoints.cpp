#include "store/sealed_checkpoints.h"

#include <sodium.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <utility>

namespace isthmus::store {

namespace {

using nlohmann::json;

constexpr char kContext[] = "isthvlt1";  // of crypto_kdf, eight characters
constexpr std::size_t kNonce = crypto_aead_xchacha20poly1305_ietf_NPUBBYTES;
constexpr std::size_t kTag = crypto_aead_xchacha20poly1305_ietf_ABYTES;
// What says that a checkpoint was begun, and that it is whole.
constexpr const char* kBegun = "begun";
constexpr const char* kWhole = "whole";

static_assert(std::tuple_size_v<VaultSecret> == crypto_kdf_KEYBYTES);
static_assert(sizeof kContext == crypto_kdf_CONTEXTBYTES + 1);

using Key = std::array<std::uint8_t, crypto_aead_xchacha20poly1305_ietf_KEYBYTES>;

Key key_of(const VaultSecret& secret, StageId stage) {
  Key key;
  crypto_kdf_derive_from_key(key.data(), key.size(), stage.value + 1ull, kContext, secret.data());
  return key;
}

std::string block_name(std::uint32_t block) { return fmt::format("block-{:06}", block); }

// STAGE and VERSION of "stage-STAGE/step-VERSION/whole".
std::optional<SealedCheckpoints::Kept> read_name(std::string_view name) {
  const auto number = [&](std::string_view word, auto& out) {
    if (!name.starts_with(word)) return false;
    name.remove_prefix(word.size());
    const auto read = std::from_chars(name.data(), name.data() + name.size(), out);
    if (read.ec != std::errc()) return false;
    name.remove_prefix(static_cast<std::size_t>(read.ptr - name.data()));
    return true;
  };
  SealedCheckpoints::Kept kept;
  if (!number("stage-", kept.stage.value) || !number("/step-", kept.version)) return std::nullopt;
  if (name != fmt::format("/{}", kWhole)) return std::nullopt;
  return kept;
}

}  // namespace

SealedCheckpoints::SealedCheckpoints(std::unique_ptr<Vault> vault, const std::string& run, const VaultSecret& secret)
    : vault_(std::move(vault)), run_(run), secret_(secret) {}

std::string SealedCheckpoints::folder(StageId stage, std::uint64_t version) const {
  return fmt::format("{}/stage-{}/step-{:08}/", run_, stage, version);
}

Bytes SealedCheckpoints::seal(StageId stage, const std::string& about, ByteView bytes) const {
  const Key key = key_of(secret_, stage);
  Bytes sealed(kNonce + bytes.size() + kTag);
  randombytes_buf(sealed.data(), kNonce);
  crypto_aead_xchacha20poly1305_ietf_encrypt(sealed.data() + kNonce, nullptr, bytes.data(), bytes.size(),
                                             bytes_of(about).data(), about.size(), nullptr, sealed.data(), key.data());
  return sealed;
}

Result<Bytes> SealedCheckpoints::open(StageId stage, const std::string& about, ByteView sealed) const {
  const Key key = key_of(secret_, stage);
  if (sealed.size() >= kNonce + kTag) {
    Bytes bytes(sealed.size() - kNonce - kTag);
    const ByteView body = sealed.subspan(kNonce);
    if (crypto_aead_xchacha20poly1305_ietf_decrypt(bytes.data(), nullptr, nullptr, body.data(), body.size(),
                                                   bytes_of(about).data(), about.size(), sealed.data(),
                                                   key.data()) == 0)
      return bytes;
  }
  return fail("{} in the vault {} is damaged, or was sealed with another key", about, vault_->place());
}

Result<std::vector<SealedCheckpoints::Kept>> SealedCheckpoints::kept() {
  const auto names = vault_->list(run_ + "/");
  if (!names) return tl::unexpected(names.error());
  std::vector<Kept> kept;
  for (const auto& name : *names)
    if (const auto read = read_name(std::string_view(name).substr(run_.size() + 1));
        read && name == folder(read->stage, read->version) + kWhole)
      kept.push_back(*read);
  std::ranges::sort(kept, {}, [](const Kept& k) { return std::pair(k.stage, k.version); });
  return kept;
}

Result<CheckpointFacts> SealedCheckpoints::open_facts(StageId stage, std::uint64_t version, const std::string& about,
                                                      ByteView sealed) const {
  const auto bytes = open(stage, about, sealed);
  if (!bytes) return tl::unexpected(bytes.error());
  // Nobody else can have written it.
  const json facts = json::parse(bytes->begin(), bytes->end(), nullptr, false);
  if (!facts.is_object()) return fail("{} in the vault {} is of another version of isthmus", about, vault_->place());
  return CheckpointFacts{version, facts.value("timeline", 0u), facts.value("bytes", std::uint64_t{0}),
                         facts.value("digest", "")};
}

Status SealedCheckpoints::put_facts(StageId stage, const CheckpointFacts& facts, const char* name) {
  const std::string about = folder(stage, facts.version) + name;
  const json text = {{"timeline", facts.timeline}, {"bytes", facts.bytes}, {"digest", facts.digest}};
  return vault_->put(about, seal(stage, about, bytes_of(text.dump())));
}

Result<std::optional<CheckpointFacts>> SealedCheckpoints::facts(StageId stage, std::uint64_t version) {
  const std::string about = folder(stage, version) + kWhole;
  const auto sealed = vault_->get(about);
  if (!sealed) return tl::unexpected(sealed.error());
  if (!*sealed) return std::nullopt;
  return open_facts(stage, version, about, **sealed);
}

std::uint32_t SealedCheckpoints::blocks_of(const CheckpointFacts& facts) {
  return static_cast<std::uint32_t>((facts.bytes + kBlockBytes - 1) / kBlockBytes);
}

Result<std::uint32_t> SealedCheckpoints::begin(StageId stage, const CheckpointFacts& facts) {
  const std::string about = folder(stage, facts.version) + kBegun;
  const auto sealed = vault_->get(about);
  if (!sealed) return tl::unexpected(sealed.error());
  const auto before = *sealed ? open_facts(stage, facts.version, about, **sealed) : fail("{} is not there", about);
  if (!before || *before != facts) {
    if (auto removed = remove(stage, facts.version); !removed) return tl::unexpected(removed.error());
    if (auto put = put_facts(stage, facts, kBegun); !put) return tl::unexpected(put.error());
    return 0;
  }
  const auto names = vault_->list(folder(stage, facts.version));
  if (!names) return tl::unexpected(names.error());
  std::uint32_t there = 0;
  while (std::ranges::binary_search(*names, folder(stage, facts.version) + block_name(there))) ++there;
  return std::min(there, blocks_of(facts));
}

Status SealedCheckpoints::put(StageId stage, const CheckpointFacts& facts, std::uint32_t block, ByteView bytes) {
  const std::string name = folder(stage, facts.version) + block_name(block);
  return vault_->put(name, seal(stage, name + "/" + facts.digest, bytes));
}

Status SealedCheckpoints::finish(StageId stage, const CheckpointFacts& facts) {
  return put_facts(stage, facts, kWhole);
}

Result<Bytes> SealedCheckpoints::block(StageId stage, const CheckpointFacts& facts, std::uint32_t block) {
  const std::string name = folder(stage, facts.version) + block_name(block);
  const auto sealed = vault_->get(name);
  if (!sealed) return tl::unexpected(sealed.error());
  if (!*sealed) return fail("the vault {} has lost {}", vault_->place(), name);
  auto bytes = open(stage, name + "/" + facts.digest, **sealed);
  const std::uint64_t begins = std::uint64_t{block} * kBlockBytes;
  if (bytes && begins + bytes->size() != std::min<std::uint64_t>(facts.bytes, begins + kBlockBytes))
    return fail("{} in the vault {} has another size than it was sealed with", name, vault_->place());
  return bytes;
}

// What says that it is whole goes first.
Status SealedCheckpoints::remove(StageId stage, std::uint64_t version) {
  auto names = vault_->list(folder(stage, version));
  if (!names) return tl::unexpected(names.error());
  std::ranges::stable_partition(*names, [](const std::string& name) { return name.ends_with(kWhole); });
  for (const auto& name : *names)
    if (auto removed = vault_->remove(name); !removed) return removed;
  return {};
}

}  // namespace isthmus::store
