#include "app/commands/invite_option.h"

#include <filesystem>
#include <iostream>
#include <utility>

namespace isthmus::app {

namespace {

// An invite has no '/' or '.', and a file's name seldom its form.
bool is_file_name(const std::string& text) {
  return !text.starts_with("isthmus") || text.find_first_of("/.") != std::string::npos || std::filesystem::exists(text);
}

}  // namespace

Result<InviteSource> invite_source(std::string text, const record::WorkerHome& home) {
  if (text.empty()) {
    const std::string last = home.invite();
    if (!std::filesystem::exists(last))
      return fail("{} has joined no run yet; give it an invite: `isthmus join INVITE`", home.path);
    return InviteSource{last, {}};
  }
  if (text == "-") {
    constexpr std::size_t kMost = 4096;
    text.clear();
    for (char c;
         text.size() < kMost && std::cin.get(c) && (c != '\n' || text.find_first_not_of(" \t\r\n") == text.npos);)
      text += c;
  } else if (is_file_name(text)) {
    return InviteSource{text, {}};
  }
  auto invite = read_invite(text);
  if (!invite) return tl::unexpected(invite.error());
  return InviteSource{"", std::move(*invite)};
}

}  // namespace isthmus::app
