#include "stage/merged_model.h"

#include "spec/boundary_form.h"

namespace isthmus::stage {

bool is_llama(const spec::RunSpec& run) {
  const spec::BoundaryForm form = spec::boundary_form(run.boundary.codec);
  const bool loses = form.sparse || (form.border != spec::BoundaryForm::Border::kNone && !form.constrained);
  return run.pipeline.stage.size() == 1 || (run.model.token_path == "none" && !form.private_basis && !loses);
}

}  // namespace isthmus::stage
