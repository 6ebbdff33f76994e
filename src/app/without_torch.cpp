// What a build without libtorch has instead of the commands that compute with a run's weights.

#include "app/commands/command_line.h"
#include "app/restore.h"

namespace isthmus::app {

void add_export(CommandLine&) {}
void add_generate(CommandLine&) {}

Result<record::RunStart> restore(const record::RunFolder&, const spec::RunConfig&, record::Begin,
                                 const RestoreOptions&) {
  return fail("--from: this program was built without libtorch, which lays a checkpoint out anew");
}

}  // namespace isthmus::app
