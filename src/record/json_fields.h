#pragma once

#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "base/digest.h"
#include "base/identity.h"
#include "base/ids.h"
#include "base/result.h"
#include "protocol/endpoints.h"
#include "protocol/fields.h"

namespace isthmus::record {

// A struct as a JSON object, from its list of fields (protocol/fields.h). Keys are hexadecimal, maps lists of pairs;
// numbers that are not finite become null, and that reads as NaN.
class JsonWriter {
 public:
  template <class T>
  void operator()(const char* name, const T& field, auto...) {
    out_[name] = json_of(field);
  }
  template <class T>
  void flat(const T& part) {
    T::fields(part, *this);
  }

  template <protocol::Listed T>
  static nlohmann::json json_of(const T& value) {
    JsonWriter writer;
    T::fields(value, writer);
    return std::move(writer.out_);
  }

 private:
  template <class T>
    requires std::is_arithmetic_v<T>
  static nlohmann::json json_of(T value) {
    return value;
  }
  static nlohmann::json json_of(const std::string& text) { return text; }
  template <class Tag, class Number>
  static nlohmann::json json_of(Id<Tag, Number> id) {
    return id.value;
  }
  static nlohmann::json json_of(const protocol::PublicKey& key) { return to_hex(key); }
  template <class T>
  static nlohmann::json json_of(const std::optional<T>& value) {
    return value ? json_of(*value) : nlohmann::json();
  }
  template <class T>
  static nlohmann::json json_of(const std::vector<T>& list) {
    auto out = nlohmann::json::array();
    for (const T& element : list) out.push_back(json_of(element));
    return out;
  }
  template <class Key, class T>
  static nlohmann::json json_of(const std::map<Key, T>& pairs) {
    auto out = nlohmann::json::array();
    for (const auto& [key, value] : pairs) out.push_back(nlohmann::json::array({json_of(key), json_of(value)}));
    return out;
  }

  nlohmann::json out_ = nlohmann::json::object();
};

// Reads what JsonWriter writes: every field, of its type and range, and no other.
class JsonReader {
 public:
  // `value` is to be used only if nothing is wrong.
  template <protocol::Listed T>
  static Status read(const nlohmann::json& object, T& value) {
    JsonReader reader(object);
    if (!object.is_object()) return fail("is no object");
    T::fields(value, reader);
    if (reader.wrong_.empty() && reader.seen_ < object.size()) return fail("has fields that are not known");
    return reader.wrong_.empty() ? Status() : fail("{}", reader.wrong_);
  }

  template <class T>
  void operator()(const char* name, T& field, auto...) {
    if (!wrong_.empty()) return;
    const auto found = object_.find(name);
    if (found == object_.end()) {
      wrong_ = fmt::format("{} is missing", name);
      return;
    }
    ++seen_;
    if (auto read = get(*found, field); !read) wrong_ = fmt::format("{} {}", name, read.error().message);
  }
  template <class T>
  void flat(T& part) {
    T::fields(part, *this);
  }

 private:
  explicit JsonReader(const nlohmann::json& object) : object_(object) {}

  template <protocol::Listed T>
  static Status get(const nlohmann::json& json, T& value) {
    return read(json, value);
  }
  template <class T>
    requires std::is_unsigned_v<T>
  static Status get(const nlohmann::json& json, T& value) {
    if (!json.is_number_unsigned() || json.get<std::uint64_t>() > std::numeric_limits<T>::max())
      return fail("is no number from 0 to {}", std::numeric_limits<T>::max());
    value = json.get<T>();
    return {};
  }
  static Status get(const nlohmann::json& json, bool& value) {
    if (!json.is_boolean()) return fail("is neither true nor false");
    value = json.get<bool>();
    return {};
  }
  static Status get(const nlohmann::json& json, double& value) {
    if (!json.is_number() && !json.is_null()) return fail("is no number");
    value = json.is_null() ? std::nan("") : json.get<double>();
    return {};
  }
  static Status get(const nlohmann::json& json, std::string& text) {
    if (!json.is_string()) return fail("is no text");
    text = json.get<std::string>();
    return {};
  }
  template <class Tag, class Number>
  static Status get(const nlohmann::json& json, Id<Tag, Number>& id) {
    return get(json, id.value);
  }
  static Status get(const nlohmann::json& json, protocol::PublicKey& key) {
    if (!json.is_string() || !from_hex(json.get_ref<const std::string&>(), key))
      return fail("is no key of 64 hexadecimal digits");
    return {};
  }
  template <class T>
  static Status get(const nlohmann::json& json, std::optional<T>& value) {
    if (json.is_null()) return {};
    return get(json, value.emplace());
  }
  template <class T>
  static Status get(const nlohmann::json& json, std::vector<T>& list) {
    if (!json.is_array()) return fail("is no list");
    for (const auto& element : json)
      if (auto read = get(element, list.emplace_back()); !read) return read;
    return {};
  }
  template <class Key, class T>
  static Status get(const nlohmann::json& json, std::map<Key, T>& pairs) {
    if (!json.is_array()) return fail("is no list of pairs");
    for (const auto& pair : json) {
      if (!pair.is_array() || pair.size() != 2) return fail("is no list of pairs");
      Key key;
      if (auto read = get(pair[0], key); !read) return read;
      if (auto read = get(pair[1], pairs[key]); !read) return read;
    }
    return {};
  }

  const nlohmann::json& object_;
  std::size_t seen_ = 0;  // fields of it that were read
  std::string wrong_;     // the first fault
};

}  // namespace isthmus::record
