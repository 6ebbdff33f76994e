#include "base/output_file.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstddef>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <thread>

namespace isthmus {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class OutputFileTest : public ::testing::Test {
 protected:
  void SetUp() override { fs::create_directories(folder_); }
  void TearDown() override { fs::remove_all(folder_); }
  std::string path(const std::string& name) const { return folder_ + "/" + name; }
  std::string read(const std::string& name) const {
    std::ifstream in(path(name));
    return {std::istreambuf_iterator<char>(in), {}};
  }
  void write(const std::string& name, const std::string& text) const { std::ofstream(path(name)) << text; }
  Status put(const std::string& name, const std::string& text, Existing existing = Existing::kRefused) const {
    return write_output(path(name), {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()}, existing);
  }
  std::size_t files() const {
    return static_cast<std::size_t>(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()));
  }
  // Does `work` in a thread whose calls `call` fail with `error`, those with one of `flags` in their third argument;
  // 0: all of them.
  static void without(long call, unsigned flags, int error, const std::function<void()>& work) {
    std::thread([&] {
      const sock_filter filter[] = {
          BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
          BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<unsigned>(call), 0,
                   static_cast<std::uint8_t>(flags == 0 ? 1 : 3)),
          flags == 0 ? sock_filter BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<unsigned>(error))
                     : sock_filter BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args[2])),
          BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, flags, 0, 1),
          BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<unsigned>(error)),
          BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
      };
      const sock_fprog program{std::size(filter), const_cast<sock_filter*>(filter)};
      ASSERT_EQ(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
      ASSERT_EQ(::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
      work();
    }).join();
  }
  const std::string folder_ = ::testing::TempDir() + "/isthmus-output-" + std::to_string(::getpid());
};

TEST_F(OutputFileTest, IsThereWhenItIsWhole) {
  {
    auto file = OutputFile::create(path("a/b/c"), Existing::kRefused);
    ASSERT_TRUE(file) << file.error().message;
    ASSERT_TRUE(file->append(Bytes{'x', 'y', 'z'}));
    EXPECT_FALSE(fs::exists(path("a/b/c")));
    ASSERT_TRUE(file->rewrite_front(Bytes{'w'}));
    ASSERT_TRUE(file->commit());
  }
  EXPECT_EQ(read("a/b/c"), "wyz");
  EXPECT_FALSE(fs::exists(path("a/b/c.new")));
}

TEST_F(OutputFileTest, ReplacesAnotherOnlyWhenAskedTo) {
  write("a", "old");
  const auto refused = put("a", "new");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().message, path("a") + " exists; --force replaces it");
  EXPECT_EQ(read("a"), "old");
  EXPECT_TRUE(put("a", "new", Existing::kReplaced));
  EXPECT_EQ(read("a"), "new");
  EXPECT_EQ(files(), 1u);
}

TEST_F(OutputFileTest, KeepsWhatAppearedMeanwhile) {
  auto file = OutputFile::create(path("a"), Existing::kRefused);
  ASSERT_TRUE(file);
  write("a", "somebody's");
  const auto committed = file->commit();
  ASSERT_FALSE(committed);
  EXPECT_THAT(committed.error().message, HasSubstr("--force"));
  EXPECT_EQ(read("a"), "somebody's");
}

TEST_F(OutputFileTest, LeavesTheOldOneWhenTheNewIsNotFinished) {
  write("a", "old");
  {
    auto file = OutputFile::create(path("a"), Existing::kReplaced);
    ASSERT_TRUE(file && file->append(Bytes(10, 'x')));
  }
  EXPECT_EQ(read("a"), "old");
  EXPECT_EQ(files(), 1u);
}

TEST_F(OutputFileTest, WritesThroughLinks) {
  fs::create_directory(path("elsewhere"));
  write("elsewhere/old", "old");
  fs::create_symlink("elsewhere/old", path("relative"));
  fs::create_symlink(path("relative"), path("twice"));
  fs::create_symlink("elsewhere/new", path("dangling"));
  EXPECT_FALSE(put("twice", "new"));
  EXPECT_TRUE(put("twice", "new", Existing::kReplaced));
  EXPECT_EQ(read("elsewhere/old"), "new");
  EXPECT_TRUE(put("dangling", "made"));
  EXPECT_EQ(read("elsewhere/new"), "made");
  for (const char* link : {"relative", "twice", "dangling"}) EXPECT_TRUE(fs::is_symlink(path(link))) << link;
}

TEST_F(OutputFileTest, RefusesLinksInACircle) {
  fs::create_symlink("b", path("a"));
  fs::create_symlink("a", path("b"));
  const auto written = put("a", "x");
  ASSERT_FALSE(written);
  EXPECT_THAT(written.error().message, HasSubstr("without an end"));
}

TEST_F(OutputFileTest, RefusesWhatIsNoRegularFile) {
  fs::create_directory(path("folder"));
  ASSERT_EQ(::mkfifo(path("pipe").c_str(), 0600), 0);
  fs::create_symlink("pipe", path("link"));
  fs::create_symlink("/dev/null", path("device"));
  const int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{AF_UNIX, {}};
  fs::current_path(folder_);
  std::snprintf(address.sun_path, sizeof address.sun_path, "socket");
  ASSERT_EQ(::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  ::close(fd);
  for (const auto& [name, kind] :
       {std::pair("folder", "a folder"), std::pair("pipe", "a named pipe"), std::pair("link", "a named pipe"),
        std::pair("device", "a device"), std::pair("socket", "a socket")})
    for (const Existing existing : {Existing::kRefused, Existing::kReplaced}) {
      if (name == std::string("device") && existing == Existing::kReplaced) continue;  // the machine's own
      const auto written = put(name, "x", existing);
      ASSERT_FALSE(written) << name;
      EXPECT_EQ(written.error().message,
                "cannot write " + path(name) + ": it is " + kind + ", expected a regular file or a new name");
    }
  EXPECT_EQ(files(), 5u);
}

TEST_F(OutputFileTest, ShowsNobodyMoreThanBefore) {
  write("a", "old");
  fs::permissions(path("a"), fs::perms(0600));
  EXPECT_TRUE(put("a", "new", Existing::kReplaced));
  EXPECT_EQ(fs::status(path("a")).permissions(), fs::perms(0600));
}

// A member of neither the old nor the new group gains anything.
TEST_F(OutputFileTest, KeepsTheGroupOrLeavesItOut) {
  constexpr gid_t kOther = 12345;
  for (const auto& [mode, alone] : {std::pair(0640, 0600), std::pair(0644, 0604), std::pair(0604, 0600)}) {
    write("a", "old");
    if (::chown(path("a").c_str(), static_cast<uid_t>(-1), kOther) != 0) GTEST_SKIP() << "only root gives files away";
    fs::permissions(path("a"), fs::perms(mode));
    struct stat info {};
    EXPECT_TRUE(put("a", "new", Existing::kReplaced));
    ASSERT_EQ(::stat(path("a").c_str(), &info), 0);
    EXPECT_EQ(info.st_gid, kOther);
    EXPECT_EQ(info.st_mode & 0777, static_cast<mode_t>(mode));
    without(__NR_fchown, 0, EPERM, [&] { EXPECT_TRUE(put("a", "newer", Existing::kReplaced)); });
    ASSERT_EQ(::stat(path("a").c_str(), &info), 0);
    EXPECT_EQ(info.st_gid, ::getegid());
    EXPECT_EQ(info.st_mode & 0777, static_cast<mode_t>(alone));
    fs::remove(path("a"));
  }
}

// The user may have a file, or a link to one, of whatever name.
TEST_F(OutputFileTest, TouchesNothingBesideItsPlace) {
  write("precious", "old");
  write("b.new", "mine");
  fs::create_symlink("precious", path("a.new"));
  for (const char* name : {"a", "b"}) {
    EXPECT_TRUE(put(name, "first"));
    EXPECT_TRUE(put(name, "second", Existing::kReplaced));
    EXPECT_EQ(read(name), "second");
    EXPECT_FALSE(fs::is_symlink(path(name)));
  }
  EXPECT_EQ(read("precious"), "old");
  EXPECT_EQ(read("b.new"), "mine");
  EXPECT_EQ(read("a.new"), "old");
  EXPECT_EQ(files(), 5u);
}

TEST_F(OutputFileTest, HasNoNameBeforeItIsWhole) {
  auto file = OutputFile::create(path("a"), Existing::kRefused);
  ASSERT_TRUE(file && file->append(Bytes(10, 'x')));
  EXPECT_EQ(files(), 0u);
}

TEST_F(OutputFileTest, LetsTwoWritersOfOneNameWork) {
  const auto both = [&](Existing existing) {
    auto first = OutputFile::create(path("a"), existing), second = OutputFile::create(path("a"), existing);
    ASSERT_TRUE(first && second);
    ASSERT_TRUE(first->append(Bytes{'1'}) && second->append(Bytes{'2'}));
    EXPECT_TRUE(first->commit());
    EXPECT_EQ(read("a"), "1");
    const auto late = second->commit();
    EXPECT_EQ(late.has_value(), existing == Existing::kReplaced);
    if (!late) {
      EXPECT_EQ(late.error().message, path("a") + " exists; --force replaces it");
    }
    EXPECT_EQ(read("a"), late ? "2" : "1");
  };
  for (const Existing existing : {Existing::kRefused, Existing::kReplaced}) {
    both(existing);
    EXPECT_EQ(files(), 1u);
    fs::remove(path("a"));
    without(__NR_openat, O_TMPFILE & ~O_DIRECTORY, EOPNOTSUPP, [&] { both(existing); });
    EXPECT_EQ(files(), 1u);
    fs::remove(path("a"));
  }
}

TEST_F(OutputFileTest, WorksWithoutUnnamedFiles) {
  without(__NR_openat, O_TMPFILE & ~O_DIRECTORY, EOPNOTSUPP, [&] {
    {
      auto file = OutputFile::create(path("a"), Existing::kRefused);
      ASSERT_TRUE(file && file->append(Bytes(10, 'x')));
      EXPECT_EQ(files(), 1u);
    }
    EXPECT_EQ(files(), 0u);
    EXPECT_TRUE(put("a", "first"));
    EXPECT_TRUE(put("a", "second", Existing::kReplaced));
    EXPECT_FALSE(put("a", "third"));
    without(__NR_renameat2, 0, EINVAL, [&] {
      EXPECT_TRUE(put("b", "first"));
      auto file = OutputFile::create(path("c"), Existing::kRefused);
      ASSERT_TRUE(file);
      write("c", "somebody's");
      EXPECT_FALSE(file->commit());
    });
  });
  EXPECT_EQ(read("a"), "second");
  EXPECT_EQ(read("b"), "first");
  EXPECT_EQ(read("c"), "somebody's");
  EXPECT_EQ(files(), 3u);
}

TEST_F(OutputFileTest, RefusesWhatNamesNoFile) {
  fs::create_symlink("nowhere/", path("link"));
  for (const std::string& name : {std::string(), path("made/"), path("made/."), path("made/.."), path("link")})
    for (const Existing existing : {Existing::kRefused, Existing::kReplaced}) {
      const auto file = OutputFile::create(name, existing);
      ASSERT_FALSE(file) << name;
      EXPECT_EQ(file.error().message,
                "cannot write \"" + name + "\": it names no file, expected a file's name at its end");
    }
  for (const std::string& name : {std::string("."), std::string(".."), folder_ + "/"})
    EXPECT_FALSE(OutputFile::create(name, Existing::kReplaced)) << name;
  EXPECT_EQ(files(), 1u);
}

}  // namespace
}  // namespace isthmus
