#pragma once

#include <string>
#include <string_view>

namespace isthmus::spec {

// What boundary.codec makes of the model: where the residual stream lives and what of it crosses a boundary.
//
// subspace    x = E[token] + U·z, layers write z += A·f(x), z crosses (Protocol Models, arXiv 2506.01260, factored)
// projected   the same stream from full matrices, put back into span(U) after each step (the paper's own form)
// narrow      as subspace, but each stage learns the basis it looks at z through
// bottleneck  free layers; a learned encoder and decoder at each boundary (ResBM, arXiv 2604.11947)
// learned     free layers; encoder and decoder keep orthonormal columns
// projection  an ordinary model whose stream is projected on U: what is lost is lost
// top_k       an ordinary model; the largest numbers of each token cross
// identity    an ordinary model; everything crosses
struct BoundaryForm {
  // The stream starts from the fixed table E, which every stage has, so that only what differs from it has to cross.
  bool fixed_base = false;
  // Below factored_layers every write stays in the subspace.
  bool constrained = false;
  // … because the stream is z itself: rank numbers per token.
  bool coefficients = false;
  // Each stage's basis is its own and learned.
  bool private_basis = false;
  // What narrows a full-width stream where it leaves a stage, and widens it where it enters one.
  enum class Border { kNone, kFixed, kOrthonormal, kFree } border = Border::kNone;
  // rank numbers per token cross, not hidden …
  bool narrow = true;
  // … as values and positions.
  bool sparse = false;
  // What crosses means the same at every boundary, so that a stage may be skipped.
  constexpr bool shared() const { return border != Border::kFree && border != Border::kOrthonormal; }
};

// REQUIRES: a codec that configs/run.schema.json lists.
constexpr BoundaryForm boundary_form(std::string_view codec) {
  using Border = BoundaryForm::Border;
  if (codec == "subspace") return {.fixed_base = true, .constrained = true, .coefficients = true};
  if (codec == "narrow") return {.fixed_base = true, .constrained = true, .coefficients = true, .private_basis = true};
  if (codec == "projected") return {.fixed_base = true, .constrained = true, .border = Border::kFixed};
  if (codec == "bottleneck") return {.fixed_base = true, .border = Border::kFree};
  if (codec == "learned") return {.fixed_base = true, .border = Border::kOrthonormal};
  if (codec == "projection") return {.border = Border::kFixed};
  if (codec == "top_k") return {.sparse = true};
  return {.narrow = false};
}

// What a user of this codec might not expect of the layer-to-stage map; empty: nothing.
inline std::string map_note(const std::string& codec) {
  if (codec != "projected") return "";
  return "codec projected rounds the stream at every boundary, with fp32 values too: with another layer-to-stage "
         "map, or --from one, the same seed trains to other weights";
}

}  // namespace isthmus::spec
