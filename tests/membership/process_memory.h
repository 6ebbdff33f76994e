#pragma once

#include <sys/types.h>

#include <cstdint>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <string>

// Writes what a process has made in its memory, heap, stacks and what it has mapped of no file, into a file. Needs the
// right to trace it. The process should stand still.
inline void write_memory(pid_t pid, const std::string& file) {
  const std::string folder = "/proc/" + std::to_string(pid);
  std::ifstream maps(folder + "/maps"), memory(folder + "/mem", std::ios::binary);
  std::ofstream out(file, std::ios::binary);
  for (std::string line; std::getline(maps, line);) {
    std::uint64_t begin = 0, end = 0, inode = 0;
    char may[5] = {};
    if (std::sscanf(line.c_str(), "%lx-%lx %4s %*x %*s %lu", &begin, &end, may, &inode) != 4) continue;
    if (may[0] != 'r' || may[1] != 'w' || inode != 0) continue;
    // A page that cannot be read ends the region, not the search.
    std::string bytes(4096, '\0');
    memory.clear();
    memory.seekg(static_cast<std::streamoff>(begin));
    for (std::uint64_t at = begin; at < end && memory.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
         at += bytes.size())
      if (bytes.find_first_not_of('\0') != bytes.npos) out << bytes;
  }
}
