#pragma once

#include <string>
#include <tl/expected.hpp>

#include "config/load_run.h"

namespace isthmus::config {

// The text of a file that a person wrote; `kind` says what is expected there: "a run file". Reads one byte more than
// kRunFileBytesMax at most: what is longer need not be read to be refused.
tl::expected<std::string, Problem> config_file_text(const std::string& path, const std::string& kind);

}  // namespace isthmus::config
