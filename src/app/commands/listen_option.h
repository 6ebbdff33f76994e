#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "transport/local_address.h"

namespace isthmus::app {

// --listen ADDRESS: refused here if others could not be told to dial it.
inline CLI::Option* add_listen(CLI::App& command, std::string& address, const std::string& text) {
  return command.add_option("--listen", address, text)->check([](const std::string& host) {
    const auto fits = transport::check_listen(host);
    return fits ? std::string() : fits.error().message;
  });
}

}  // namespace isthmus::app
