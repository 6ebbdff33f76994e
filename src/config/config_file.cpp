#include "config/config_file.h"

#include <filesystem>
#include <fstream>

#include "config/run_document.h"

namespace isthmus {

tl::expected<std::string, Problem> config_file_text(const std::string& path, const std::string& kind) {
  const auto refuse = [&](std::string what, std::string expected) {
    return tl::unexpected(Problem{path, 0, 0, std::move(what), std::move(expected)});
  };
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status)) return refuse("there is no such file", kind + "; configs/ holds examples");
  if (std::filesystem::is_directory(status)) return refuse("this is a folder", kind);
  std::ifstream in(path, std::ios::binary);
  if (!in) return refuse("the file cannot be opened", "a readable file");
  std::string text(kRunFileBytesMax + 1, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (in.bad()) return refuse("the file cannot be read", "a readable file");
  text.resize(static_cast<std::size_t>(in.gcount()));
  return text;
}

}  // namespace isthmus
