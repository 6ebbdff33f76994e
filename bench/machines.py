"""Machines of their own on one network, made of network namespaces and a bridge. As root."""
import os
import subprocess


def sh(command):
    subprocess.run(command, shell=True, check=True)


class Machines:
    """At 203.0.113.1 and on, in this order; all go with the `with` that made them."""

    def __init__(self, names):
        self.prefix = f"bench-{os.getpid()}-"
        self.names = list(names)

    def __enter__(self):
        net = self.prefix + "net"
        try:
            sh(f"ip netns add {net} && ip -n {net} link add switch type bridge && ip -n {net} link set switch up")
            for number, name in enumerate(self.names, 1):
                n = self.prefix + name
                sh(f"ip netns add {n} && ip -n {n} link set lo up")
                sh(f"ip -n {n} link add uplink type veth peer name {name} netns {net}")
                sh(f"ip -n {n} addr add 203.0.113.{number}/24 dev uplink && ip -n {n} link set uplink up")
                sh(f"ip -n {net} link set {name} master switch up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for name in [*self.names, "net"]:
            subprocess.run(["ip", "netns", "del", self.prefix + name], capture_output=True, check=False)

    def limit(self, name, down, up, queue):
        """Mb/s to this machine and from it, by token buckets; `queue`: tc's words for their sizes."""
        sh(f"ip netns exec {self.prefix}{name} tc qdisc add dev uplink root tbf rate {up}mbit {queue}")
        sh(f"ip netns exec {self.prefix}net tc qdisc add dev {name} root tbf rate {down}mbit {queue}")

    def keep_apart(self, name, apart):
        """From all others that are kept apart."""
        sh(f"ip netns exec {self.prefix}net bridge link set dev {name} isolated {'on' if apart else 'off'}")

    def start(self, name, command):
        return subprocess.Popen(["ip", "netns", "exec", self.prefix + name, *command], stdout=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL)
