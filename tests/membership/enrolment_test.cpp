#include "app/enrolment.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/version.h"
#include "transport/door.h"

namespace isthmus::app {
namespace {

class EnrolmentTest : public ::testing::Test {
 protected:
  std::string request(const EnrolTerms& terms, const Identity& identity) const {
    return encode_request({"worker-1", StageId(1), true}, terms, identity);
  }
  // The request with one of its values changed.
  std::string changed(const std::string& key, const nlohmann::json& value) const {
    auto j = nlohmann::json::parse(request(terms_, worker_));
    j[key] = value;
    return j.dump();
  }
  std::string refusal(const std::string& text) const {
    const auto asked = check_request(text, terms_);
    EXPECT_FALSE(asked) << text;
    return asked ? "" : asked.error().message;
  }
  const Identity coordinator_ = Identity::fresh(), worker_ = Identity::fresh(), other_ = Identity::fresh();
  const EnrolTerms terms_{0x1234, coordinator_.key(), transport::new_key_pair().public_key};
};

TEST_F(EnrolmentTest, SaysWhoAsks) {
  const auto asked = check_request(request(terms_, worker_), terms_);
  ASSERT_TRUE(asked) << asked.error().message;
  EXPECT_EQ(asked->enrolment.identity, worker_.key());
  EXPECT_EQ(asked->enrolment.key, transport::key_pair_of(worker_).public_key);
  EXPECT_EQ(asked->enrolment.name, "worker-1");
  EXPECT_EQ(asked->enrolment.wish, StageId(1));
  EXPECT_TRUE(asked->with_spec);
}

TEST_F(EnrolmentTest, FitsInAFrameWithTheLongestName) {
  const std::string text = encode_request({std::string(64, '"'), StageId(70'000), true}, terms_, worker_);
  EXPECT_LE(text.size(), transport::kRequestBytesMax);
}

TEST_F(EnrolmentTest, RefusesWhatWasSignedForAnotherRunCoordinatorOrInvite) {
  EnrolTerms other = terms_;
  other.run_id = 0x4321;
  EXPECT_NE(refusal(request(other, worker_)).find("run 0000000000001234, not run 0000000000004321"), std::string::npos);
  other = terms_;
  other.coordinator = other_.key();
  EXPECT_NE(refusal(request(other, worker_)).find("signature"), std::string::npos);
  other = terms_;
  other.invite = transport::new_key_pair().public_key;
  EXPECT_NE(refusal(request(other, worker_)).find("signature"), std::string::npos);
}

TEST_F(EnrolmentTest, RefusesWhoeverClaimsToBeSomebodyElse) {
  const auto theirs = nlohmann::json::parse(request(terms_, other_));
  EXPECT_NE(refusal(changed("identity", theirs["identity"])).find("signature"), std::string::npos);
  EXPECT_NE(refusal(changed("key", theirs["key"])).find("signature"), std::string::npos);
  EXPECT_NE(refusal(changed("signature", theirs["signature"])).find("signature"), std::string::npos);
}

TEST_F(EnrolmentTest, NamesBothVersions) {
  const std::string sentence = refusal(changed("version", "9.9.9"));
  EXPECT_NE(sentence.find("9.9.9"), std::string::npos) << sentence;
  EXPECT_NE(sentence.find(kVersion), std::string::npos) << sentence;
  // Whatever else it says.
  EXPECT_NE(refusal(R"({"version":"9.9.9"})").find("9.9.9"), std::string::npos);
}

TEST_F(EnrolmentTest, RefusesAnythingElseAndRepeatsNothingOfItThatCouldHarm) {
  for (const char* text : {"", "x", "[]", "{}", "null", "[[[[[[", "\xff\xfe", R"({"version":1})"}) refusal(text);
  EXPECT_NE(refusal(changed("identity", "12")).find("64 hexadecimal digits"), std::string::npos);
  for (const char* key : {"run", "identity", "key", "name", "stage", "spec", "signature"})
    refusal(changed(key, nlohmann::json::array({1})));
  const std::string sentence = refusal(changed("version", "\x1b[2J" + std::string(900, 'x')));
  EXPECT_EQ(sentence.find('\x1b'), std::string::npos);
  EXPECT_LT(sentence.size(), 200u);
}

// As the coordinator makes it.
EnrolAnswer at_door() {
  EnrolAnswer answer;
  answer.peer = PeerId(3);
  answer.place = protocol::Place{StageId(1), ReplicaId(2)};
  answer.coordinator = {"tcp://0.0.0.0:7000", "tcp://0.0.0.0:7001"};
  answer.door = "tcp://0.0.0.0:7002";
  const auto key = relay::new_key();
  answer.relays = {{"coordinator:7003", relay::make_pass(key, 0x1234, PeerId(3), 99)},
                   {"198.51.100.7:7010", relay::make_pass(key, 0x1234, PeerId(3), 98)}};
  answer.version = 7;
  answer.begun = true;
  answer.spec = std::string(3 * transport::kAnswerPartMax + 5, 's');
  return answer;
}

TEST_F(EnrolmentTest, AnswersComeBackWhole) {
  EnrolAnswer answer = at_door();
  auto back = decode_answer(encode_answer(answer));
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(std::get<EnrolAnswer>(*back), answer);
  answer.place.reset();
  answer.waits = "place 2 of 3: all seats are taken";
  back = decode_answer(encode_answer(answer));
  ASSERT_TRUE(back);
  EXPECT_EQ(std::get<EnrolAnswer>(*back), answer);
  back = decode_answer(encode_refusal("no"));
  ASSERT_TRUE(back);
  EXPECT_EQ(std::get<EnrolRefusal>(*back).sentence, "no");
}

TEST_F(EnrolmentTest, IsSeenFromWhereTheDoorWasDialled) {
  EnrolAnswer answer = at_door();
  ASSERT_TRUE(see_from(answer, {"203.0.113.1", 9002}));
  EXPECT_EQ(answer.coordinator, (protocol::Endpoints{"tcp://203.0.113.1:9000", "tcp://203.0.113.1:9001"}));
  EXPECT_EQ(answer.door, "tcp://203.0.113.1:9002");
  EXPECT_EQ(answer.relays[0].address, "203.0.113.1:9003");
  EXPECT_EQ(answer.relays[1].address, "198.51.100.7:7010") << "another machine";
  answer = at_door();
  ASSERT_TRUE(see_from(answer, {"2001:db8::1", 7002}));
  EXPECT_EQ(answer.coordinator.bulk, "tcp://[2001:db8::1]:7001");
  answer = at_door();
  EXPECT_FALSE(see_from(answer, {"203.0.113.1", 1}));
  answer = at_door();
  EXPECT_FALSE(see_from(answer, {"203.0.113.1", 65535}));
}

TEST_F(EnrolmentTest, TakesNoOtherAnswer) {
  EXPECT_FALSE(decode_answer({}));
  for (const char* text : {"", "{}", "[]", R"({"peer":1})", R"({"refused":1})"}) EXPECT_FALSE(decode_answer({text}));
  EnrolAnswer answer;
  answer = at_door();
  answer.coordinator.control = "ipc:///etc/passwd";
  EXPECT_FALSE(decode_answer(encode_answer(answer)));
  answer = at_door();
  answer.relays[1].address = "nowhere";
  EXPECT_FALSE(decode_answer(encode_answer(answer)));
  answer = at_door();
  answer.relays.resize(1000, answer.relays[0]);
  EXPECT_FALSE(decode_answer(encode_answer(answer)));
}

}  // namespace
}  // namespace isthmus::app
