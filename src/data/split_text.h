#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "data/mapped_file.h"

namespace isthmus::data {

// Text files joined in order and cut in two, the end held out. Views into mapped files: text of any size.
struct SplitText {
  std::vector<MappedFile> files;
  std::vector<ByteView> train;       // stretches of the files, none empty
  std::vector<ByteView> validation;  // follows on `train`
};

enum class TextUnit { kByte, kCodePoint };

// Holds out `validation_share` of the bytes, in [0, 1), at least one unless the share is 0. By code point the text has
// to be UTF-8 (the error says which file and byte is not) and the cut moves on to the next whole one.
Result<SplitText> split_text(const std::vector<std::string>& files, double validation_share, TextUnit unit);

// Takes a piece from the front of `text`, which is not empty: a line with its end, or 4096 bytes of a longer one, or
// up to three bytes less, so that a code point stays whole.
ByteView take_piece(ByteView& text);

// Position of the first byte that is not UTF-8 (RFC 3629: nothing overlong, no surrogates).
std::optional<std::size_t> find_malformed(ByteView text);

// An error if one of `outputs` is one of `inputs` or another output, by any name.
Status check_outputs(const std::vector<std::string>& inputs, const std::vector<std::string>& outputs);

}  // namespace isthmus::data
