#include "model/pack.h"

#include <filesystem>
#include <fstream>

#include "model/token_shard.h"

namespace isthmus {

Status pack(const PackOptions& options) {
  namespace fs = std::filesystem;
  if (!(options.validation_share > 0 && options.validation_share < 1))
    return fail("--validation-share is {}, expected a number between 0 and 1", options.validation_share);
  if (fs::weakly_canonical(options.train) == fs::weakly_canonical(options.validation))
    return fail("--train and --validation are the same file, {}", options.train);
  Bytes text;
  for (const auto& file : options.files) {
    std::error_code error;
    for (const auto& output : {options.train, options.validation})
      if (fs::equivalent(file, output, error)) return fail("{} is both an input and an output", file);
    if (!fs::is_regular_file(file, error)) return fail("cannot read {}: no such file", file);
    std::ifstream in(file, std::ios::binary);
    text.insert(text.end(), std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
    if (in.bad()) return fail("cannot read {}", file);
  }
  const auto held_out = static_cast<std::size_t>(static_cast<double>(text.size()) * options.validation_share);
  if (held_out == 0 || held_out == text.size()) return fail("{} bytes of text are too few to hold some out", text.size());
  const ByteView all(text);
  for (const auto& output : {options.train, options.validation}) {
    std::error_code error;
    const auto folder = fs::path(output).parent_path();
    if (!folder.empty()) fs::create_directories(folder, error);
    if (error) return fail("cannot make the folder {}: {}", folder.string(), error.message());
  }
  return write_byte_shard(options.train, all.first(all.size() - held_out)).and_then([&] {
    return write_byte_shard(options.validation, all.last(held_out));
  });
}

}  // namespace isthmus
