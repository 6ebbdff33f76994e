#pragma once

#include <optional>
#include <string>
#include <variant>

#include "app/enrolment.h"
#include "app/join_file.h"
#include "base/identity.h"
#include "base/time.h"
#include "transport/door.h"

namespace isthmus::app {

// The worker's end: asks at the door that a join file names whether this identity may take part, again and again. The
// file is looked at all the while, for a coordinator that was started again may be found elsewhere. One thread.
class Enroller {
 public:
  Enroller(std::string join_file, Identity identity, EnrolRequest request)
      : path_(std::move(join_file)), identity_(std::move(identity)), request_(std::move(request)) {}

  using Heard = std::variant<std::monostate, EnrolAnswer, EnrolRefusal>;
  // Waits at most so long for an answer. Monostate: none came.
  Heard listen(Duration longest, Time now);
  // The run's spec need not be sent again.
  void have_spec() { request_.with_spec = false; }
  // Hangs up until it listens again.
  void rest() {
    caller_.reset();
    join_.reset();
  }
  // What stands between this worker and an answer, for people.
  const std::string& trouble() const { return trouble_; }
  // What the file said when it was last dialled; none: it was never there.
  const std::optional<JoinFile>& join() const { return join_; }

 private:
  void look_at_file(Time now);

  const std::string path_;
  const Identity identity_;
  EnrolRequest request_;
  std::optional<JoinFile> join_;
  std::optional<transport::Caller> caller_;
  Time look_again_{};
  Time dialled_{};
  Time ask_again_{};
  std::string trouble_;
};

}  // namespace isthmus::app
