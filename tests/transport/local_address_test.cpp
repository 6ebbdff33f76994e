#include "transport/local_address.h"

#include <gtest/gtest.h>

namespace isthmus::transport {
namespace {

TEST(LocalAddress, IsTheOneOnTheWayThere) {
  EXPECT_EQ(local_address_towards("tcp://127.0.0.1:4000"), "127.0.0.1");
  EXPECT_EQ(local_address_towards("tcp://127.8.9.10:4000"), "127.0.0.1");
}

TEST(LocalAddress, RefusesWhatIsNoAddress) {
  for (const char* bad : {"", "tcp://", "tcp://127.0.0.1", "ipc://127.0.0.1:1", "tcp://:80", "tcp://localhost:80",
                          "tcp://1.2.3.4:http", "tcp://[::1:80", "tcp://1.2.3.4.5:1"})
    EXPECT_FALSE(local_address_towards(bad)) << bad;
}

TEST(LocalAddress, IsWhatASocketListensAt) {
  for (const char* good : {"127.0.0.1", "192.168.1.20", "[fe80::1]", "::1", "0.0.0.0", "::", "[::]"})
    EXPECT_TRUE(check_listen(good)) << good;
  for (const char* bad : {"0", "000.0.0.0", "*", "", "localhost", "eth0", "1.2.3", "[::1", "1.2.3.4:80"})
    EXPECT_FALSE(check_listen(bad)) << bad;
}

TEST(LocalAddress, StandsForAllOfItsKind) {
  EXPECT_EQ(wildcard_like("192.168.1.20"), "0.0.0.0");
  EXPECT_EQ(wildcard_like("[2001:db8::1]"), "[::]");
  const protocol::Endpoints all{"tcp://0.0.0.0:40000", "tcp://0.0.0.0:40001"};
  EXPECT_EQ(at_host(all, "192.168.1.20"),
            (protocol::Endpoints{"tcp://192.168.1.20:40000", "tcp://192.168.1.20:40001"}));
  EXPECT_EQ(at_host(all, "[2001:db8::1]").bulk, "tcp://[2001:db8::1]:40001");
}

}  // namespace
}  // namespace isthmus::transport
