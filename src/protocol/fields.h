#pragma once

#include <concepts>
#include <cstdint>

namespace isthmus::protocol {

// Every struct that leaves its process has one list of its fields, next to them:
//
//   template <class Self>
//   static void fields(Self& self, auto& visit) {
//     visit.flat(self.tag);                            // a struct whose fields stand among this one's
//     visit("n", self.n);
//     visit("absent", self.absent, Most::kStages);     // a list or a text, and how long it may be
//     visit("phase", self.phase, Phase::kEnded);       // an enumeration and its last value
//   }
//
// Whoever writes or reads such structs is a visitor: message bodies by position (wire), the coordinator's log by name
// (record). So nobody can forget a field that another one writes, or take it for another. `Self` is const for a writer.

// How many elements a list has at most, or bytes a text. The first four are the run's.
enum class Most : std::uint8_t {
  kMembers,
  kStages,
  kMicrobatches,
  kUnits,    // separately hashed pieces of the model
  kCommits,  // 1,024
  kDigest,   // 128 bytes
  kAddress,  // 256
  kNote,     // 256
  kText,     // 4,096
};

// Asks a struct nothing.
struct NoVisit {
  void operator()(const char*, const auto&, auto...) {}
  void flat(const auto&) {}
};
template <class T>
concept Listed = requires(T& t, NoVisit& visit) { std::remove_const_t<T>::fields(t, visit); };

}  // namespace isthmus::protocol
