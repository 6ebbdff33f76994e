#pragma once

#include <nlohmann/json.hpp>
#include <optional>

#include "data/vocabulary.h"

namespace isthmus::app {

// A tokenizer.json of Hugging Face's tokenizers library that makes of a text what this project makes of it.

// Of a run on bytes: each is its own id.
nlohmann::json byte_tokenizer();
// Of a run on words; nothing if the vocabulary was not made by byte pair encoding. One difference: a U+2581 in the
// text, which stands for a space inside a vocabulary, comes back as one.
std::optional<nlohmann::json> word_tokenizer(const data::Vocabulary& vocabulary);

}  // namespace isthmus::app
