#include "app/invite.h"

#include <sodium.h>

#include <algorithm>
#include <array>

#include "base/input_file.h"
#include "base/little_endian.h"
#include "protocol/endpoints.h"
#include "record/line_file.h"

namespace isthmus::app {

namespace {

constexpr std::string_view kForm = "isthmus1";
constexpr std::size_t kTextMax = 2048, kChecksumBytes = 4;
constexpr std::uint8_t kNamesAStage = 1;
constexpr int kVariant = sodium_base64_VARIANT_URLSAFE_NO_PADDING;

std::array<std::uint8_t, kChecksumBytes> checksum(ByteView bytes) {
  std::array<std::uint8_t, 16> digest;  // the shortest that BLAKE2b makes here
  crypto_generichash(digest.data(), digest.size(), bytes.data(), bytes.size(), nullptr, 0);
  std::array<std::uint8_t, kChecksumBytes> first;
  std::copy_n(digest.begin(), first.size(), first.begin());
  return first;
}

// Takes parts off the front of some bytes; what is not there is zero, and `good` is false from then on.
class Parts {
 public:
  explicit Parts(ByteView bytes) : left_(bytes) {}
  ByteView take(std::size_t size) {
    good = good && left_.size() >= size;
    if (!good) return {};
    const ByteView part = left_.first(size);
    left_ = left_.subspan(size);
    return part;
  }
  std::uint64_t number(std::size_t size) {
    std::uint64_t value = 0;
    const ByteView part = take(size);
    for (std::size_t i = 0; i < part.size(); ++i) value |= std::uint64_t{part[i]} << (8 * i);
    return value;
  }
  template <std::size_t n>
  void bytes(std::array<std::uint8_t, n>& out) {
    std::ranges::copy(take(n), out.begin());
  }
  bool empty() const { return left_.empty(); }

  bool good = true;

 private:
  ByteView left_;
};

void put(std::vector<std::uint8_t>& out, std::uint64_t value, std::size_t size) {
  for (std::size_t i = 0; i < size; ++i) out.push_back(static_cast<std::uint8_t>(value >> (8 * i)));
}

Result<Invite> decode(ByteView bytes) {
  const Error changed{
      "this is no whole invite: its checksum is wrong, so that something in it was changed or is "
      "missing; copy it again"};
  if (bytes.size() < kChecksumBytes) return tl::unexpected(changed);
  const ByteView body = bytes.first(bytes.size() - kChecksumBytes);
  if (!std::ranges::equal(checksum(body), bytes.last(kChecksumBytes))) return tl::unexpected(changed);
  const Error other{"this invite is of a form that this version does not know; install the version of the run's owner"};
  Invite invite;
  std::array<std::uint8_t, 32> seed{};
  Parts parts(body);
  const std::uint64_t flags = parts.number(1);
  invite.run_id = parts.number(8);
  parts.bytes(invite.coordinator);
  parts.bytes(seed);
  invite.expires_s = parts.number(8);
  if (flags & kNamesAStage) invite.stage = StageId(static_cast<std::uint32_t>(parts.number(4)));
  const std::uint64_t doors = parts.number(1);
  if (!parts.good || flags > kNamesAStage || doors < 1 || doors > kDoorsMax) return tl::unexpected(other);
  for (std::uint64_t i = 0; i < doors; ++i) {
    const ByteView door = parts.take(parts.number(1));
    invite.doors.emplace_back(door.begin(), door.end());
    if (!protocol::is_tcp("tcp://" + invite.doors.back())) return tl::unexpected(other);
  }
  if (!parts.good || !parts.empty() || !invite.coordinator_key()) return tl::unexpected(other);
  invite.key = transport::key_pair_of(seed);
  return invite;
}

}  // namespace

std::string invite_text(const Invite& invite) {
  std::vector<std::uint8_t> bytes = {invite.stage ? kNamesAStage : std::uint8_t{0}};
  put(bytes, invite.run_id, 8);
  bytes.insert(bytes.end(), invite.coordinator.begin(), invite.coordinator.end());
  bytes.insert(bytes.end(), invite.key.secret_key.begin(), invite.key.secret_key.end());
  put(bytes, invite.expires_s, 8);
  if (invite.stage) put(bytes, invite.stage->value, 4);
  put(bytes, invite.doors.size(), 1);
  for (const auto& door : invite.doors) {
    put(bytes, door.size(), 1);
    bytes.insert(bytes.end(), door.begin(), door.end());
  }
  for (const std::uint8_t byte : checksum(bytes)) bytes.push_back(byte);
  std::string text(sodium_base64_encoded_len(bytes.size(), kVariant), '\0');
  sodium_bin2base64(text.data(), text.size(), bytes.data(), bytes.size(), kVariant);
  text.pop_back();  // the end that C strings have
  return std::string(kForm) + text;
}

Result<Invite> read_invite(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  text.remove_prefix(std::min(text.find_first_not_of(kSpace), text.size()));
  text = text.substr(0, text.find_last_not_of(kSpace) + 1);
  if (!text.starts_with(kForm)) {
    if (text.starts_with("isthmus"))
      return fail("this invite is of a form that this version does not know; install the version of the run's owner");
    return fail("this is no invite: one begins with {}; `isthmus invite` prints it", kForm);
  }
  if (text.size() > kTextMax) return fail("this is no invite: it is longer than {} characters", kTextMax);
  text.remove_prefix(kForm.size());
  if (text.empty()) return fail("this is no whole invite: nothing follows {}; copy it again", kForm);
  std::vector<std::uint8_t> bytes(text.size());
  std::size_t size = 0;
  if (sodium_base642bin(bytes.data(), bytes.size(), text.data(), text.size(), nullptr, &size, nullptr, kVariant) != 0)
    return fail(
        "this is no whole invite: a character in it does not belong there, or the last ones are missing; copy "
        "it again");
  bytes.resize(size);
  return decode(bytes);
}

Status write_invite_file(const std::string& path, const Invite& invite) {
  return record::write_whole(path, invite_text(invite) + "\n", 0600);
}

Result<Invite> read_invite_file(const std::string& path) {
  const auto text = read_secret(path, "a run's join file", kTextMax);
  if (!text) return tl::unexpected(text.error());
  auto invite = read_invite(*text);
  if (!invite) return fail("{}: {}", path, invite.error().message);
  return invite;
}

}  // namespace isthmus::app
