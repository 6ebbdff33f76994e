#include "config/config_file.h"

#include "base/input_file.h"
#include "config/run_document.h"

namespace isthmus::config {

tl::expected<std::string, Problem> config_file_text(const std::string& path, const std::string& kind) {
  const auto problem = [&](const InputFlaw& flaw) { return Problem{path, 0, 0, flaw.what, flaw.expected}; };
  auto file = InputFile::open(path, kind);
  if (!file) {
    Problem missing = problem(file.error());
    if (missing.what == kNoSuchFile) missing.expected += "; configs/ holds examples";
    return tl::unexpected(std::move(missing));
  }
  return file->read(kRunFileBytesMax + 1).map_error(problem);
}

}  // namespace isthmus::config
