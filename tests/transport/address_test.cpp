#include "transport/address.h"

#include <gtest/gtest.h>

#include "transport/name_lookup.h"

namespace isthmus::transport {
namespace {

TEST(Address, IsReadAsItIsWritten) {
  for (const char* text : {"203.0.113.1:7002", "[2001:db8::1]:7002", "home.example.org:1", "my-host_2:65535"}) {
    const auto address = read_address(text);
    ASSERT_TRUE(address) << text;
    EXPECT_EQ(address->text(), text);
    EXPECT_EQ(read_address(address->endpoint()), address);
  }
  EXPECT_TRUE(read_address("203.0.113.1:7002")->is_numeric());
  EXPECT_TRUE(read_address("[2001:db8::1]:7002")->is_numeric());
  EXPECT_FALSE(read_address("home.example.org:1")->is_numeric());
}

TEST(Address, IsRefusedWithoutHostOrPort) {
  for (const std::string bad : {"", ":", "a:", ":1", "a:0", "a:65536", "a:1x", "a b:1", "2001:db8::1:7002", "[::1]",
                                "[::1:7", "ipc:///tmp/x:1", "a\n:1", "a/b:1"})
    EXPECT_FALSE(read_address(bad)) << bad;
  EXPECT_FALSE(read_address(std::string(300, 'a') + ":1"));
}

TEST(Address, OfAHomeIsItsRoutersOrItsFirst64Bits) {
  EXPECT_EQ(network_of("203.0.113.7"), "203.0.113.7");
  EXPECT_EQ(network_of("::ffff:203.0.113.7"), "203.0.113.7") << "as a socket that takes both shows it";
  EXPECT_EQ(network_of("2001:db8:1:2:aaaa::1"), network_of("[2001:db8:1:2:bbbb::2]"));
  EXPECT_NE(network_of("2001:db8:1:2::1"), network_of("2001:db8:1:3::1"));
}

TEST(Address, KnowsThisMachineAndAllOfIt) {
  for (const char* own : {"127.0.0.1", "127.8.8.8", "::1", "[::1]", "::ffff:127.0.0.1"}) EXPECT_TRUE(is_loopback(own));
  for (const char* other : {"128.0.0.1", "::2", "localhost", ""}) EXPECT_FALSE(is_loopback(other)) << other;
  for (const char* all : {"0.0.0.0", "::", "[::]"}) EXPECT_TRUE(is_wildcard(all)) << all;
  for (const char* one : {"0.0.0.1", "::1", "any", ""}) EXPECT_FALSE(is_wildcard(one)) << one;
}

TEST(NameLookup, FindsThisMachineAndSaysWhomItDoesNot) {
  const auto wait = [](const NameLookup& lookup) {
    while (true)
      if (auto answer = lookup.poll()) return std::move(*answer);
  };
  const auto found = wait(NameLookup({"localhost", 7002}));
  ASSERT_TRUE(found) << found.error().message;
  EXPECT_TRUE(is_loopback(found->front().host)) << found->front().host;
  EXPECT_EQ(found->front().port, 7002);
  const auto nobody = wait(NameLookup({"nobody.invalid", 7002}));
  ASSERT_FALSE(nobody);
  EXPECT_NE(nobody.error().message.find("no address for the name nobody.invalid"), std::string::npos);
}

}  // namespace
}  // namespace isthmus::transport
