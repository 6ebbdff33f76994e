#pragma once

#include <sys/types.h>

#include <functional>
#include <string>
#include <vector>

// Machines with networks of their own, made of network namespaces: the internet is a bridge, a home a router that
// masquerades and a machine behind it. All have IPv6 addresses as well, which nobody translates. Needs root, iproute2
// and nftables; everything goes with the object.
class Namespaces {
 public:
  Namespaces();
  ~Namespaces();
  Namespaces(const Namespaces&) = delete;
  Namespaces& operator=(const Namespaces&) = delete;

  // Why none can be made here; empty: they can.
  const std::string& missing() const { return missing_; }

  // A machine on the internet, at 203.0.113.<number> and 2001:db8::<number>.
  void add_machine(const std::string& name, int number);
  // A machine at 192.168.<number>.2 and 2001:db8:<number>::2 behind a router of its own, which is 203.0.113.<number>
  // and 2001:db8::<number> outside and lets nobody in.
  void add_home(const std::string& name, int number);
  // One more machine behind the router of this home.
  void add_guest(const std::string& name, const std::string& home, int last);
  // The home's router lets ports of IPv4 through to machines that ask: with NAT-PMP, or as UPnP has it. What it says is
  // in `folder`, <home>-router.log. False: needs miniupnpd.
  enum class Asking { kNatPmp, kUpnp };
  bool open_on_request(const std::string& home, Asking how, const std::string& folder);
  // Ports that it lets through now.
  int open_ports(const std::string& home) const;
  // What this machine's link carries, in Mb/s, to it and from it.
  void shape(const std::string& name, double down, double up);
  // The machine, or the router of the home, gets another address outside, as providers do at night; what was open is
  // lost.
  void renumber(const std::string& name, int number);
  // Pulls the machine's cable, or puts it back.
  void plug(const std::string& name, bool in);

  // Writes whatever passes this machine's link into a file, from now on, until the end.
  void record(const std::string& name, const std::string& file);

  // Runs in a child before it becomes the program: moves it to the machine.
  std::function<void()> within(const std::string& name) const;
  // A command on the machine; whether it succeeded.
  bool on(const std::string& name, const std::string& command) const;

 private:
  std::string space(const std::string& name) const;
  void make(const std::string& name);
  void connect(const std::string& a, const std::string& device_a, const std::string& b, const std::string& device_b);
  void run(const std::string& command);
  // Runs until the end.
  void stay(const std::function<int()>& work);

  std::string missing_;
  std::vector<std::string> spaces_;
  std::vector<pid_t> servants_;
};
