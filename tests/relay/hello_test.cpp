#include "relay/hello.h"

#include <gtest/gtest.h>

namespace isthmus::relay {
namespace {

constexpr std::uint64_t kNow = 1'800'000'000;

struct RelayHello : testing::Test {
  const Key key = new_key();
  const Pass pass = make_pass(key, 7, PeerId(3), kNow + 60);
  const Nonce nonce{1, 2, 3};
  const Hello hello{Kind::kCall, 1, 7, PeerId(3), PeerId(4), 0, kNow + 60};
};

TEST_F(RelayHello, ArrivesAsItWasSaid) {
  const Checked checked = check_hello(encode_hello(hello, pass, nonce), key, nonce, kNow);
  EXPECT_EQ(checked.verdict, Verdict::kWelcome);
  EXPECT_EQ(checked.hello, hello);
}

TEST_F(RelayHello, IsRefusedWithAnyByteChangedOrMissing) {
  const Bytes good = encode_hello(hello, pass, nonce);
  ASSERT_EQ(good.size(), kHelloBytes);
  for (std::size_t i = 0; i < good.size(); ++i) {
    Bytes bad = good;
    bad[i] ^= 1;
    EXPECT_NE(check_hello(bad, key, nonce, kNow).verdict, Verdict::kWelcome) << i;
    EXPECT_NE(check_hello(ByteView(good).first(i), key, nonce, kNow).verdict, Verdict::kWelcome) << i;
  }
}

TEST_F(RelayHello, ServesNoOtherConnectionRelayPeerOrTime) {
  const Bytes said = encode_hello(hello, pass, nonce);
  EXPECT_EQ(check_hello(said, key, Nonce{9}, kNow).verdict, Verdict::kNoProof);
  EXPECT_EQ(check_hello(said, new_key(), nonce, kNow).verdict, Verdict::kNoProof);
  EXPECT_EQ(check_hello(said, key, nonce, kNow + 61).verdict, Verdict::kExpired);
  Hello other = hello;
  other.from = PeerId(5);
  EXPECT_EQ(check_hello(encode_hello(other, pass, nonce), key, nonce, kNow).verdict, Verdict::kNoProof);
}

TEST_F(RelayHello, TellsAnotherVersionAndKindFromALie) {
  Bytes later = encode_hello(hello, pass, nonce);
  later[4] = kVersion + 1;
  EXPECT_EQ(check_hello(later, key, nonce, kNow).verdict, Verdict::kOtherVersion);
  Hello odd = hello;
  odd.kind = static_cast<Kind>(4);
  EXPECT_EQ(check_hello(encode_hello(odd, pass, nonce), key, nonce, kNow).verdict, Verdict::kOtherVersion);
  odd = hello;
  odd.lane = 2;
  EXPECT_EQ(check_hello(encode_hello(odd, pass, nonce), key, nonce, kNow).verdict, Verdict::kOtherVersion);
}

TEST(RelayGreeting, IsKnownFromWhatOthersSay) {
  const Greeting greeting{{4, 5, 6}, {0x20, 0x01, 0x0d, 0xb8}, 40'000};
  const Bytes good = encode_greeting(greeting);
  EXPECT_EQ(decode_greeting(good), greeting);
  Bytes other = good;
  other[4] = kVersion + 1;
  EXPECT_FALSE(decode_greeting(other));
  EXPECT_FALSE(decode_greeting(Bytes(kGreetingBytes, 'H')));
  EXPECT_FALSE(decode_greeting(ByteView(good).first(kGreetingBytes - 1)));
}

TEST(RelayRing, ArrivesAsItWasSent) {
  const Ring ring{1, PeerId(17), 99};
  EXPECT_EQ(decode_ring(encode_ring(ring)), ring);
  Bytes bad = encode_ring(ring);
  bad[0] = 2;
  EXPECT_FALSE(decode_ring(bad));
  EXPECT_FALSE(decode_ring(Bytes(kRingBytes + 1)));
}

TEST(RelayName, IsReadAsItWasPrinted) {
  const RelayName relay{"203.0.113.9:7003", new_key()};
  EXPECT_EQ(*read_relay("  " + relay_text(relay) + "\n"), relay);
  for (const char* bad : {"", "isthmus-relay1", "isthmus-relay1 203.0.113.9:7003 12ab", "isthmus1abc"})
    EXPECT_NE(read_relay(bad).error().message.find("isthmus relay"), std::string::npos) << bad;
}

}  // namespace
}  // namespace isthmus::relay
