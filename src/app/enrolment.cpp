#include "app/enrolment.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/digest.h"
#include "base/plain_text.h"
#include "base/version.h"
#include "protocol/endpoints.h"
#include "transport/door.h"

namespace isthmus::app {

using nlohmann::json;

namespace {

constexpr std::size_t kSentenceMax = 500, kRelaysMax = 8;

std::string run_text(std::uint64_t run_id) { return fmt::format("{:016x}", run_id); }

std::string signed_part(const EnrolTerms& terms, const protocol::PublicKey& key) {
  return fmt::format("isthmus enrol 1\n{}\n{}\n{}\n{}\n", run_text(terms.run_id), to_hex(terms.coordinator),
                     to_hex(terms.invite), to_hex(key));
}

// What a stranger says stands in a sentence of ours only as far as it can do no harm there.
std::string harmless(const std::string& text) {
  std::string plain;
  for (const char c : text.substr(0, 40)) plain += c >= ' ' && c <= '~' ? c : '?';
  return plain;
}

std::string endpoint_of(const json& j) {
  const std::string endpoint = j;
  if (!protocol::is_tcp(endpoint))
    throw std::invalid_argument("'" + harmless(endpoint) + "' is not tcp://ADDRESS:PORT");
  return endpoint;
}

}  // namespace

std::string encode_request(const EnrolRequest& request, const EnrolTerms& terms, const Identity& identity) {
  const protocol::PublicKey key = transport::key_pair_of(identity).public_key;
  return json{{"version", kVersion},
              {"run", run_text(terms.run_id)},
              {"identity", to_hex(identity.key())},
              {"key", to_hex(key)},
              {"name", request.name},
              {"stage", request.wish ? json(request.wish->value) : json()},
              {"spec", request.with_spec},
              {"leaves", request.leaves ? json(*request.leaves) : json()},
              {"life", request.life},
              {"signature", to_hex(identity.sign(bytes_of(signed_part(terms, key))))}}
      .dump(-1, ' ', false, json::error_handler_t::replace);
}

Result<EnrolAsked> check_request(const std::string& text, const EnrolTerms& terms) {
  EnrolAsked asked;
  std::string run;
  Signature signature{};
  try {
    const json j = json::parse(text);
    // First: another version may ask in another form.
    if (const std::string version = j.at("version"); version != kVersion)
      return fail("this run is served by isthmus {}, and whoever asks is isthmus {}; install the run's version",
                  kVersion, harmless(version));
    run = j.at("run");
    if (!from_hex(j.at("identity").get<std::string>(), asked.enrolment.identity) ||
        !from_hex(j.at("key").get<std::string>(), asked.enrolment.key) ||
        !from_hex(j.at("signature").get<std::string>(), signature))
      return fail("the request is malformed: a key has 64 hexadecimal digits, a signature 128");
    asked.enrolment.name = j.at("name");
    if (const auto& stage = j.at("stage"); !stage.is_null()) asked.enrolment.wish = StageId(stage.get<std::uint32_t>());
    asked.with_spec = j.at("spec");
    if (const auto& why = j.at("leaves"); !why.is_null())
      asked.leaves = plain_text(why.get<std::string>(), kSentenceMax);
    asked.enrolment.life = j.at("life");
    asked.enrolment.again = !asked.with_spec;  // whoever has the spec was let in before
  } catch (const std::exception&) {
    return fail("the request is malformed; expected one of isthmus {}", kVersion);
  }
  if (run != run_text(terms.run_id))
    return fail("this is run {}, not run {}; take its newest invite", run_text(terms.run_id), harmless(run));
  if (!signed_by(asked.enrolment.identity, bytes_of(signed_part(terms, asked.enrolment.key)), signature))
    return fail("the signature does not fit the identity; take its newest invite");
  const auto key = curve_key_of(asked.enrolment.identity);
  if (!key || *key != asked.enrolment.key) return fail("the CURVE key is not the identity's own");
  asked.enrolment.invite = terms.invite;
  return asked;
}

std::vector<std::string> encode_answer(const EnrolAnswer& answer) {
  json relays = json::array();
  for (const auto& relay : answer.relays)
    relays.push_back({{"address", relay.address},
                      {"run", run_text(relay.pass.run_id)},
                      {"expires", relay.pass.expires_s},
                      {"secret", to_hex(relay.pass.secret)}});
  std::vector<std::string> parts = {json{
      {"peer", answer.peer.value},
      {"place", answer.place ? json{answer.place->stage.value, answer.place->replica.value} : json()},
      {"waits", answer.waits},
      {"control", answer.coordinator.control},
      {"bulk", answer.coordinator.bulk},
      {"door", answer.door},
      {"relays", relays},
      {"version", answer.version},
      {"begun", answer.begun}}.dump()};
  for (std::size_t at = 0; at < answer.spec.size(); at += transport::kAnswerPartMax)
    parts.push_back(answer.spec.substr(at, transport::kAnswerPartMax));
  return parts;
}

Status see_from(EnrolAnswer& answer, const transport::Address& dialled) {
  const auto door = transport::read_address(answer.door);
  const auto shifted = [&](const std::string& text) -> Result<transport::Address> {
    const auto there = transport::read_address(text);
    const int port = there && door ? int{there->port} - int{door->port} + int{dialled.port} : 0;
    if (port < 1 || port > 65535)
      return fail("the coordinator's address {} cannot be as far from its door {} as from {}", text, answer.door,
                  dialled.text());
    return transport::Address{dialled.host, static_cast<std::uint16_t>(port)};
  };
  for (std::string* endpoint : {&answer.coordinator.control, &answer.coordinator.bulk}) {
    const auto seen = shifted(*endpoint);
    if (!seen) return tl::unexpected(seen.error());
    *endpoint = seen->endpoint();
  }
  for (auto& relay : answer.relays) {
    if (transport::read_address(relay.address)->host != kAtCoordinator) continue;
    const auto seen = shifted(relay.address);
    if (!seen) return tl::unexpected(seen.error());
    relay.address = seen->text();
  }
  answer.door = dialled.endpoint();
  return {};
}

std::vector<std::string> encode_refusal(const std::string& sentence, bool for_a_moment) {
  return {
      json{{"refused", sentence}, {"for_a_moment", for_a_moment}}.dump(-1, ' ', false, json::error_handler_t::replace)};
}

Result<std::variant<EnrolAnswer, EnrolRefusal>> decode_answer(const std::vector<std::string>& parts) {
  try {
    const json j = json::parse(parts.at(0));
    if (j.contains("refused"))
      return EnrolRefusal{j.at("refused").get<std::string>().substr(0, kSentenceMax), j.value("for_a_moment", false)};
    EnrolAnswer answer;
    answer.peer = PeerId(j.at("peer").get<std::uint32_t>());
    if (const auto& place = j.at("place"); !place.is_null())
      answer.place = {StageId(place.at(0).get<std::uint32_t>()), ReplicaId(place.at(1).get<std::uint32_t>())};
    answer.waits = j.at("waits");
    answer.coordinator = {endpoint_of(j.at("control")), endpoint_of(j.at("bulk"))};
    answer.door = endpoint_of(j.at("door"));
    for (const auto& relay : j.at("relays")) {
      relay::RelayPass pass{relay.at("address"), {}};
      const std::string run = relay.at("run"), secret = relay.at("secret");
      if (answer.relays.size() >= kRelaysMax || !transport::read_address(pass.address) ||
          !from_hex(secret, pass.pass.secret) || run.size() != 16)
        throw std::invalid_argument("'" + harmless(pass.address) + "' is no relay");
      pass.pass.run_id = std::stoull(run, nullptr, 16);
      pass.pass.peer = answer.peer;
      pass.pass.expires_s = relay.at("expires");
      answer.relays.push_back(std::move(pass));
    }
    answer.version = j.at("version");
    answer.begun = j.at("begun");
    for (std::size_t i = 1; i < parts.size(); ++i) answer.spec += parts[i];
    return answer;
  } catch (const std::exception& error) {
    return fail("the coordinator's answer is malformed: {}; install its version", error.what());
  }
}

}  // namespace isthmus::app
