#pragma once

#include <optional>
#include <string>
#include <variant>

#include "app/enrolment.h"
#include "app/invite.h"
#include "base/identity.h"
#include "base/time.h"
#include "transport/door.h"
#include "transport/name_lookup.h"

namespace isthmus::app {

// Where an invite comes from: a file that the coordinator writes again when it is found elsewhere, or somebody's hand.
struct InviteSource {
  std::string file;  // empty: `given`
  std::optional<Invite> given;

  Result<Invite> look() const { return given ? Result<Invite>(*given) : read_invite_file(file); }
  // For people.
  std::string name() const { return given ? "the invite" : file; }
};

// The worker's end: asks at the doors that an invite names whether this identity may take part, again and again, at one
// after the other. A file is looked at all the while. One thread.
class Enroller {
 public:
  Enroller(InviteSource source, Identity identity, EnrolRequest request)
      : source_(std::move(source)), identity_(std::move(identity)), request_(std::move(request)) {}

  using Heard = std::variant<std::monostate, EnrolAnswer, EnrolRefusal>;
  // Waits at most so long for an answer. Monostate: none came.
  Heard listen(Duration longest, Time now);
  // Tells the coordinator that this worker gives up its seat or its place in the queue. Takes a second at most; whether
  // it has heard.
  bool say_good_bye(const std::string& why = "");
  // The run's spec need not be sent again.
  void have_spec() { request_.with_spec = false; }
  // Hangs up until it listens again.
  void rest() {
    caller_.reset();
    invite_.reset();
  }
  // What stands between this worker and an answer, for people.
  const std::string& trouble() const { return trouble_; }
  // The invite as it was when it was last dialled; none: it was never there.
  const std::optional<Invite>& invite() const { return invite_; }

 private:
  void look(Time now);
  void dial();

  const InviteSource source_;
  const Identity identity_;
  EnrolRequest request_;
  std::optional<Invite> invite_;
  std::size_t dials_ = 0;  // with it
  std::optional<transport::NameLookup> lookup_;
  transport::Address dialled_at_;
  std::optional<transport::Caller> caller_;
  Time look_again_{};
  Time dialled_{};
  Time ask_again_{};
  std::string trouble_;
};

}  // namespace isthmus::app
