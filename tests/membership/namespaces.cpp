#include "membership/namespaces.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/if_ether.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace {

bool succeeds(const std::string& command) { return std::system((command + " >/dev/null 2>&1").c_str()) == 0; }

// What tests that were killed have left.
void sweep_up() {
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator("/run/netns", none)) {
    const std::string name = entry.path().filename();
    int pid = 0;
    if (std::sscanf(name.c_str(), "isthmus-%d-", &pid) == 1 && ::kill(pid, 0) != 0)
      (void)succeeds("ip netns del " + name);
  }
}

}  // namespace

Namespaces::Namespaces() {
  sweep_up();
  if (!succeeds("nft --version")) {
    missing_ = "needs nftables, to make home routers";
    return;
  }
  if (!succeeds("ip netns add " + space("internet")) ||
      !succeeds("ip -n " + space("internet") + " link add switch type bridge")) {
    missing_ = "needs root, iproute2 and bridges, to make network namespaces";
    return;
  }
  spaces_.push_back("internet");
  run("ip -n " + space("internet") + " link set switch up");
  run("ip -n " + space("internet") + " addr add 2001:db8::ffff/64 dev switch nodad");
  run("ip netns exec " + space("internet") + " sysctl -qw net.ipv6.conf.all.forwarding=1");
}

Namespaces::~Namespaces() {
  for (const pid_t pid : servants_) {
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
  }
  for (const auto& name : spaces_) (void)succeeds("ip netns del " + space(name));
  (void)succeeds("ip netns del " + space("internet"));
}

std::string Namespaces::space(const std::string& name) const {
  return "isthmus-" + std::to_string(::getpid()) + "-" + name;
}

void Namespaces::run(const std::string& command) { ASSERT_TRUE(succeeds(command)) << command; }

bool Namespaces::on(const std::string& name, const std::string& command) const {
  return succeeds("ip netns exec " + space(name) + " " + command);
}

void Namespaces::make(const std::string& name) {
  run("ip netns add " + space(name));
  spaces_.push_back(name);
  run("ip -n " + space(name) + " link set lo up");
}

void Namespaces::connect(const std::string& a, const std::string& device_a, const std::string& b,
                         const std::string& device_b) {
  run("ip -n " + space(a) + " link add " + device_a + " type veth peer name " + device_b + " netns " + space(b));
  run("ip -n " + space(a) + " link set " + device_a + " up");
  run("ip -n " + space(b) + " link set " + device_b + " up");
}

void Namespaces::add_machine(const std::string& name, int number) {
  make(name);
  connect(name, "uplink", "internet", name);
  run("ip -n " + space("internet") + " link set " + name + " master switch");
  run("ip -n " + space(name) + " addr add 203.0.113." + std::to_string(number) + "/24 dev uplink");
  run("ip -n " + space(name) + " addr add 2001:db8::" + std::to_string(number) + "/64 dev uplink nodad");
  run("ip -n " + space(name) + " -6 route add default via 2001:db8::ffff");
}

void Namespaces::add_home(const std::string& name, int number) {
  const std::string router = name + "-router", lan = "192.168." + std::to_string(number),
                    lan6 = "2001:db8:" + std::to_string(number) + "::";
  add_machine(router, number);
  run("ip -n " + space(router) + " link add lan type bridge");
  run("ip -n " + space(router) + " link set lan up");
  run("ip -n " + space(router) + " addr add " + lan + ".1/24 dev lan");
  run("ip -n " + space(router) + " addr add " + lan6 + "1/64 dev lan nodad");
  run("ip -n " + space("internet") + " -6 route add " + lan6 + "/64 via 2001:db8::" + std::to_string(number));
  run("ip netns exec " + space(router) + " sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
  run("ip netns exec " + space(router) +
      " nft 'table inet filter {"
      " chain miniupnpd { }; chain prerouting_miniupnpd { }; chain postrouting_miniupnpd { };"
      " chain before { type nat hook prerouting priority dstnat; jump prerouting_miniupnpd; };"
      " chain out { type nat hook postrouting priority srcnat; jump postrouting_miniupnpd;"
      "  meta nfproto ipv4 oifname uplink masquerade; };"
      " chain through { type filter hook forward priority filter; policy accept;"
      "  iifname uplink ct state established,related accept; jump miniupnpd; iifname uplink drop; };"
      " chain in { type filter hook input priority filter; policy accept;"
      "  iifname uplink ct state established,related accept;"
      "  iifname uplink meta l4proto ipv6-icmp accept; iifname uplink drop; }; }'");
  add_guest(name, name, 2);
}

void Namespaces::add_guest(const std::string& name, const std::string& home, int last) {
  const std::string router = home + "-router";
  make(name);
  connect(name, "uplink", router, "to" + std::to_string(last));
  run("ip -n " + space(router) + " link set to" + std::to_string(last) + " master lan");
  const std::string find =
      "ip -n " + space(router) + " -4 -o addr show dev lan | grep -o '192[.]168[.][0-9]*' | head -n1";
  run("ip -n " + space(name) + " addr add $(" + find + ")." + std::to_string(last) + "/24 dev uplink");
  run("ip -n " + space(name) + " route add default via $(" + find + ").1");
  const std::string find6 =
      "ip -n " + space(router) + " -6 -o addr show dev lan scope global | grep -o '2001:db8:[0-9]*' | head -n1";
  run("ip -n " + space(name) + " addr add $(" + find6 + ")::" + std::to_string(last) + "/64 dev uplink nodad");
  run("ip -n " + space(name) + " -6 route add default via $(" + find6 + ")::1");
}

// miniupnpd takes no address of those that are for examples for one outside, so it is told another.
bool Namespaces::open_on_request(const std::string& home, Asking how, const std::string& folder) {
  constexpr const char* kProgram = "/usr/sbin/miniupnpd";
  if (::access(kProgram, X_OK) != 0) return false;
  const std::string router = home + "-router", file = folder + "/" + router + ".conf";
  std::ofstream(file) << "ext_ifname=uplink\next_ip=9.9.9.9\nlistening_ip=lan\nsecure_mode=yes\n"
                      << "uuid=00000000-0000-0000-0000-000000000001\n"
                      << "enable_natpmp=" << (how == Asking::kNatPmp ? "yes" : "no") << "\n"
                      << "enable_upnp=" << (how == Asking::kUpnp ? "yes" : "no") << "\n"
                      << "allow 1024-65535 0.0.0.0/0 1024-65535\ndeny 0-65535 0.0.0.0/0 0-65535\n";
  const std::string pid_file = file + ".pid", log = folder + "/" + router + ".log";
  const auto go_there = within(router);
  stay([=] {
    go_there();
    if (std::freopen(log.c_str(), "w", stderr) == nullptr) return 1;
    return ::execl(kProgram, kProgram, "-d", "-f", file.c_str(), "-P", pid_file.c_str(), nullptr);
  });
  return true;
}

int Namespaces::open_ports(const std::string& home) const {
  const std::string list = "ip netns exec " + space(home + "-router") + " nft list ruleset";
  int count = 0;
  if (FILE* rules = ::popen(list.c_str(), "r")) {
    std::array<char, 1024> line;
    while (std::fgets(line.data(), line.size(), rules))
      count += std::string(line.data()).find(" dnat ") != std::string::npos;
    ::pclose(rules);
  }
  return count;
}

void Namespaces::stay(const std::function<int()>& work) {
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::_exit(work());
  }
  servants_.push_back(pid);
}

void Namespaces::shape(const std::string& name, double down, double up) {
  const auto limit = [](double mbps) {
    return " root tbf rate " + std::to_string(mbps) + "mbit burst 32kb latency 200ms";
  };
  const std::string inside = "ip netns exec " + space(name) + " tc qdisc replace dev uplink";
  run(inside + limit(up));
  const std::string router = name + "-router";
  if (succeeds("ip -n " + space(router) + " link show to2"))
    run("ip netns exec " + space(router) + " tc qdisc replace dev to2" + limit(down));
  else
    run("ip netns exec " + space("internet") + " tc qdisc replace dev " + name + limit(down));
}

void Namespaces::renumber(const std::string& name, int number) {
  const bool home = succeeds("ip -n " + space(name + "-router") + " link show uplink");
  const std::string outside = home ? name + "-router" : name;
  run("ip -n " + space(outside) + " addr flush dev uplink");
  run("ip -n " + space(outside) + " addr add 203.0.113." + std::to_string(number) + "/24 dev uplink");
}

void Namespaces::plug(const std::string& name, bool in) {
  run("ip -n " + space(name) + " link set uplink " + (in ? "up" : "down"));
  if (in && succeeds("ip -n " + space(name + "-router") + " link show lan")) {
    const std::string find =
        "ip -n " + space(name) + " -4 -o addr show dev uplink | grep -o '192[.]168[.][0-9]*' | head -n1";
    run("ip -n " + space(name) + " route replace default via $(" + find + ").1");
  }
}

// A socket that sees every frame is open, and has room for a burst, before this returns.
void Namespaces::record(const std::string& name, const std::string& file) {
  int ready[2];
  ASSERT_EQ(::pipe2(ready, O_CLOEXEC), 0);
  const auto go_there = within(name);
  stay([&] {
    go_there();
    const int seen = ::socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL));
    const int room = 64 << 20;
    const int out = ::open(file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0600);
    if (seen < 0 || out < 0 || ::setsockopt(seen, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room) != 0 ||
        ::write(ready[1], "!", 1) != 1)
      return 1;
    std::array<char, 1 << 16> frame;
    for (ssize_t n; (n = ::recv(seen, frame.data(), frame.size(), 0)) > 0;)
      if (::write(out, frame.data(), static_cast<std::size_t>(n)) != n) return 1;
    return 0;
  });
  ::close(ready[1]);
  char go = 0;
  EXPECT_EQ(::read(ready[0], &go, 1), 1) << "cannot see what passes " << name;
  ::close(ready[0]);
}

std::function<void()> Namespaces::within(const std::string& name) const {
  return [path = "/run/netns/" + space(name)] {
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0 || ::setns(fd, CLONE_NEWNET) != 0) ::_exit(126);
  };
}
