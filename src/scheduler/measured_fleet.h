#pragma once

#include <map>
#include <string>

#include "base/ids.h"
#include "base/time.h"
#include "config/run_config.h"
#include "scheduler/link_survey.h"
#include "scheduler/report.h"

namespace isthmus {

// What a run knows of its machines and links, as the [fleet] tables that `isthmus plan --measured` takes. Machine worker-N is
// peer N. Once a link was measured, pairs without a measurement are given the rate and latency of the run's [link]. Of very many
// workers, the first 1,024, and the 4,000 youngest measurements among them: a run file holds no more.
std::string measured_fleet(const RunConfig& run, const std::map<PeerId, Report>& reports, const LinkSurvey& survey, Time now);

}  // namespace isthmus
