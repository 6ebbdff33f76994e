#include "record/decision_log.h"

#include <nlohmann/json.hpp>

#include "base/digest.h"
#include "record/json_fields.h"

namespace isthmus::record {

using nlohmann::json;

namespace {

constexpr const char* kRecord = "record";

// The alternative of this name.
template <std::size_t i = 0>
Result<coordinator::LogRecord> record_named(const std::string& name, const json& fields) {
  if constexpr (i == std::variant_size_v<coordinator::LogRecord>) {
    return fail("no record is named {}", name);
  } else {
    std::variant_alternative_t<i, coordinator::LogRecord> record;
    if (name != record.kName) return record_named<i + 1>(name, fields);
    if (auto read = JsonReader::read(fields, record); !read) return tl::unexpected(read.error());
    return record;
  }
}

}  // namespace

std::string encode_record(const coordinator::LogRecord& record) {
  return std::visit(
      [](const auto& r) {
        json out = JsonWriter::json_of(r);
        out[kRecord] = r.kName;
        return out.dump();
      },
      record);
}

Result<coordinator::LogRecord> decode_record(const std::string& text) {
  json fields = json::parse(text, nullptr, false);
  const auto name = fields.is_object() ? fields.find(kRecord) : fields.end();
  if (name == fields.end() || !name->is_string()) return fail("it is no JSON object that names its record");
  const std::string kind = *name;
  fields.erase(name);
  return record_named(kind, fields);
}

Result<DecisionLog> DecisionLog::open(const std::string& path, const Identity& signer) {
  // The lock first: opening for appending cuts off a torn line, which may be one that another process is writing.
  auto lock = FileLock::take(path, "coordinator");
  if (!lock) return tl::unexpected(lock.error());
  auto file = LineFile::open(path);
  if (!file) return tl::unexpected(file.error());
  const auto text = read_whole(path, kLogBytesMax);
  if (!text) return tl::unexpected(text.error());
  const auto checked = check_lines(*text, Signatures::kLast);
  const auto damaged = [&](std::uint64_t line, const std::string& what) {
    return fail("{}:{}: this line {}; restore the file or start again with another --out", path, line, what);
  };
  if (!checked) return damaged(checked.error().line, checked.error().what);
  if (checked->number == 0) {
    auto lines = SignedLines::begin(signer);
    if (auto begun = file->append(lines.first_line()); !begun) return tl::unexpected(begun.error());
    return DecisionLog(std::move(*lock), std::move(*file), std::move(lines));
  }
  if (checked->signer != signer.key())
    return fail("{} is signed by {}, and this coordinator is {}; restore the identity file that belongs to it", path,
                to_hex(checked->signer), to_hex(signer.key()));
  DecisionLog log(std::move(*lock), std::move(*file), SignedLines(signer, checked->number, checked->last_hash));
  for (const auto& line : checked->texts) {
    auto record = decode_record(line);
    if (!record) return damaged(log.records_.size() + 2, "holds no record of this version: " + record.error().message);
    log.records_.push_back(std::move(*record));
  }
  return log;
}

Status DecisionLog::append(const coordinator::LogRecord& record) {
  return file_.append(lines_.line(encode_record(record))).and_then([&] { return file_.sync(); });
}

}  // namespace isthmus::record
