#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/checkpoint_facts.h"
#include "base/ids.h"
#include "base/result.h"
#include "store/vault.h"

namespace isthmus::store {

// 32 bytes that only the owner's side has.
using VaultSecret = std::array<std::uint8_t, 32>;

// A run's checkpoints in a vault, as archives (store/checkpoint_archive.h) in blocks. Whoever keeps the vault can lose
// them, and sees how large they are. It cannot read them, nor put another block, stage, version or run in the place of
// one: each block is sealed for its place (XChaCha20-Poly1305 with a random nonce, libsodium), with its stage's own
// key, which follows from the run's secret (crypto_kdf). Blocks rather than one stream, so that each can be checked,
// fetched and sent again alone. One thread.
class SealedCheckpoints {
 public:
  static constexpr std::size_t kBlockBytes = 4 << 20;

  // `run`: names the run in the vault, which may hold several.
  SealedCheckpoints(std::unique_ptr<Vault> vault, const std::string& run, const VaultSecret& secret);

  // Those that are whole, of all stages.
  struct Kept {
    StageId stage;
    std::uint64_t version = 0;
    friend bool operator==(const Kept&, const Kept&) = default;
  };
  Result<std::vector<Kept>> kept();
  // Nothing: it is not there, or not whole. Errors: the vault cannot be read, or another secret sealed it.
  Result<std::optional<CheckpointFacts>> facts(StageId stage, std::uint64_t version);

  static std::uint32_t blocks_of(const CheckpointFacts& facts);
  // Begins to keep one, or goes on: how many of its blocks, from the first on, are there. What is there of another one
  // of that version is removed.
  Result<std::uint32_t> begin(StageId stage, const CheckpointFacts& facts);
  // REQUIRES: kBlockBytes of it, the last one what is left.
  Status put(StageId stage, const CheckpointFacts& facts, std::uint32_t block, ByteView bytes);
  // REQUIRES: all blocks are there. It is whole from now on.
  Status finish(StageId stage, const CheckpointFacts& facts);
  Result<Bytes> block(StageId stage, const CheckpointFacts& facts, std::uint32_t block);
  Status remove(StageId stage, std::uint64_t version);

  std::string place() const { return vault_->place(); }

 private:
  std::string folder(StageId stage, std::uint64_t version) const;
  Status put_facts(StageId stage, const CheckpointFacts& facts, const char* name);
  Result<CheckpointFacts> open_facts(StageId stage, std::uint64_t version, const std::string& about,
                                     ByteView sealed) const;
  Bytes seal(StageId stage, const std::string& about, ByteView bytes) const;
  Result<Bytes> open(StageId stage, const std::string& about, ByteView sealed) const;

  std::unique_ptr<Vault> vault_;
  std::string run_;
  VaultSecret secret_;
};

}  // namespace isthmus::store
