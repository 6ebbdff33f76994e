#pragma once

#include "protocol/view.h"

namespace isthmus::router {

// The news with the members that it leaves out, because the receiver knows them. Of those it names the receiver may
// know some already, if its own view is younger than the report that was answered. REQUIRES: `news` builds upon an
// epoch that is not younger than the known one.
protocol::View completed(const protocol::View& news, const protocol::View& known);

}  // namespace isthmus::router
