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

TEST_F(EnrolmentTest, AnswersComeBackWhole) {
  EnrolAnswer answer{
      PeerId(3), protocol::Place{StageId(1), ReplicaId(2)},          "", {"tcp://1.2.3.4:5", "tcp://1.2.3.4:6"}, 7,
      true,      std::string(3 * transport::kAnswerPartMax + 5, 's')};
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

TEST_F(EnrolmentTest, TakesNoOtherAnswer) {
  EXPECT_FALSE(decode_answer({}));
  for (const char* text : {"", "{}", "[]", R"({"peer":1})", R"({"refused":1})"}) EXPECT_FALSE(decode_answer({text}));
  EnrolAnswer answer;
  answer.coordinator = {"ipc:///etc/passwd", "tcp://1.2.3.4:6"};
  EXPECT_FALSE(decode_answer(encode_answer(answer)));
}

}  // namespace
}  // namespace isthmus::app
