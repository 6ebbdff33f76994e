#pragma once

#include <string>

#include "app/enroller.h"
#include "base/result.h"
#include "record/run_folder.h"

namespace isthmus::app {

// What INVITE of a command names: the string itself, a file that holds one, "-" for standard input, or, if it is empty,
// the invite with which the worker of this home joined last.
Result<InviteSource> invite_source(std::string text, const record::WorkerHome& home);

}  // namespace isthmus::app
