#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/identity.h"
#include "base/result.h"

namespace isthmus::record {

// Lines of which none can be changed, dropped, moved or added unseen: each names its number and the BLAKE2b hash of the
// line before, and is signed by whoever writes them. One line: number, hash, signature, text; a space between each. The
// first line's text names the signer's key.
//
// The end may be cut off unseen: who wants to see that keeps `last_hash` of an earlier look elsewhere.
class SignedLines {
 public:
  // Continues after `number` lines, the last of which has this hash.
  SignedLines(Identity signer, std::uint64_t number, std::string last_hash)
      : signer_(std::move(signer)), number_(number), last_hash_(std::move(last_hash)) {}
  // What the first line has to be.
  static SignedLines begin(Identity signer);

  std::string first_line();
  // The next line, without its end. The text must have no line break.
  std::string line(std::string_view text);

 private:
  Identity signer_;
  std::uint64_t number_ = 0;
  std::string last_hash_;
};

// What a file of signed lines holds.
struct CheckedLines {
  IdentityKey signer{};
  std::uint64_t number = 0;        // lines, the first one included
  std::vector<std::string> texts;  // without the first one's
  std::string last_hash;
  bool torn = false;  // a last line without an end follows: whoever wrote it was stopped, and nobody acted upon it
};
struct LineFlaw {
  std::uint64_t line = 0;  // the first that is wrong, from 1
  std::string what;        // and how
};

// Every line's signature is checked, or, much faster and as safe, the last one's, which covers all before it; if that
// finds a flaw all are looked at, so that the first is named.
enum class Signatures { kAll, kLast };
tl::expected<CheckedLines, LineFlaw> check_lines(std::string_view file, Signatures signatures);

}  // namespace isthmus::record
