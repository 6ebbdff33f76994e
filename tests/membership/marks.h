#pragma once

#include <algorithm>
#include <bitset>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>

// Runs of 16 bytes of something that must not be found elsewhere: weights, coefficients, tokens. Only such as are not
// alike by chance.
class Marks {
 public:
  static constexpr std::size_t kBytes = 16;

  // One of every so many bytes.
  void add(std::string_view bytes, std::size_t every) {
    for (std::size_t at = 0; at + kBytes <= bytes.size(); at += every) {
      const std::string_view mark = bytes.substr(at, kBytes);
      if (std::set<char>(mark.begin(), mark.end()).size() > kBytes / 2) {
        marks_.emplace(front(mark), mark);
        begun_.set(short_of(front(mark)));
      }
    }
  }
  void add_file(const std::string& path, std::size_t every) { add(read(path), every); }
  // Of a file of tensors: names and shapes are no secret.
  void add_tensors(const std::string& path, std::size_t every) {
    const std::string bytes = read(path);
    std::uint64_t header = 0;
    if (bytes.size() > sizeof header) std::memcpy(&header, bytes.data(), sizeof header);
    add(std::string_view(bytes).substr(std::min<std::size_t>(bytes.size(), sizeof header + header)), every);
  }
  std::size_t size() const { return marks_.size(); }

  // At a multiple of `step`.
  bool are_in(const std::string& path, std::size_t step = 1) const { return are_within(read(path), step); }
  bool are_within(std::string_view bytes, std::size_t step = 1) const {
    for (std::size_t at = 0; at + kBytes <= bytes.size(); at += step) {
      if (!begun_[short_of(front(bytes.substr(at)))]) continue;
      for (auto [mark, end] = marks_.equal_range(front(bytes.substr(at))); mark != end; ++mark)
        if (bytes.compare(at, kBytes, mark->second) == 0) return true;
    }
    return false;
  }
  // The first file below the folder that holds one; empty: none does.
  std::string holder(const std::string& folder) const {
    for (const auto& entry : std::filesystem::recursive_directory_iterator(folder))
      if (entry.is_regular_file() && are_in(entry.path())) return entry.path();
    return {};
  }

 private:
  static std::uint64_t front(std::string_view bytes) {
    std::uint64_t value = 0;
    std::memcpy(&value, bytes.data(), sizeof value);
    return value;
  }
  static std::size_t short_of(std::uint64_t front) { return front * 0x9e3779b97f4a7c15 >> 44; }
  static std::string read(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  std::unordered_multimap<std::uint64_t, std::string> marks_;
  std::bitset<1 << 20> begun_;  // no mark begins otherwise; a quick look
};
