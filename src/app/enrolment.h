#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/identity.h"
#include "base/ids.h"
#include "base/result.h"
#include "protocol/endpoints.h"
#include "protocol/view.h"
#include "relay/tunnel.h"
#include "scheduler/coordinator/coordinator.h"
#include "transport/address.h"

namespace isthmus::app {

// What is said at the coordinator's door (transport/door.h). Pure: no socket, file or clock.

// Both sides know it before anything is said.
struct EnrolTerms {
  std::uint64_t run_id = 0;
  IdentityKey coordinator{};
  protocol::PublicKey invite{};
};

// A request as it crosses, at most transport::kRequestBytesMax bytes. `name` is for people, `wish` a stage.
struct EnrolRequest {
  std::string name;
  std::optional<StageId> wish;
  bool with_spec = true;  // the run's spec is wanted as well
  // Instead: it gives up its seat, or its place in the queue, for this reason; empty: it was asked to.
  std::optional<std::string> leaves{};
  std::uint64_t life = 0;  // random, of this process
};
std::string encode_request(const EnrolRequest& request, const EnrolTerms& terms, const Identity& identity);

// What a request asks for, once it is certain that whoever sent it holds the identity; an error is a sentence for them.
struct EnrolAsked {
  coordinator::Enrolment enrolment;
  bool with_spec = true;
  std::optional<std::string> leaves{};
};
Result<EnrolAsked> check_request(const std::string& text, const EnrolTerms& terms);

// The coordinator's answer.
struct EnrolAnswer {
  PeerId peer;
  std::optional<protocol::Place> place;  // where it serves; nothing: it waits
  std::string waits;                     // place in the queue and reason, for people
  protocol::Endpoints coordinator;       // the ordinary sockets, as they are on its machine
  std::string door;                      // likewise
  std::vector<relay::RelayPass> relays;  // through which it reaches others, and they it
  std::uint64_t version = 0;             // weights that the run began with
  bool begun = false;                    // it is beyond them: the newest checkpoint at hand is the best to start from
  std::string spec;                      // the run's, if it was asked for
  friend bool operator==(const EnrolAnswer&, const EnrolAnswer&) = default;
};
std::vector<std::string> encode_answer(const EnrolAnswer& answer);
// The same, as it is from where the door was dialled at this address: the coordinator's ports are as far from each
// other as on its machine, wherever its router opens them. Errors: a port would be none.
Status see_from(EnrolAnswer& answer, const transport::Address& dialled);
// How long a pass for a relay lasts.
inline constexpr std::uint64_t kPassSeconds = 3600;
// The host of a relay that is the coordinator itself, until then.
inline constexpr const char* kAtCoordinator = "coordinator";
// `for_a_moment`: worth another try in a few seconds.
std::vector<std::string> encode_refusal(const std::string& sentence, bool for_a_moment = false);

struct EnrolRefusal {
  std::string sentence;
  bool for_a_moment = false;
};
// An error: the answer is none.
Result<std::variant<EnrolAnswer, EnrolRefusal>> decode_answer(const std::vector<std::string>& parts);

}  // namespace isthmus::app
