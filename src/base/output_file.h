#pragma once

#include <string>

#include "base/bytes.h"
#include "base/result.h"

namespace isthmus {

// What becomes of a file that is there under an output's name.
enum class Existing { kRefused, kReplaced };

// A file that is complete and in place after commit(), or not there at all, or as it was: it grows without a name, or,
// where the file system has no such files, under a name of its own beside its place. Symbolic links are followed, also
// to what is not there yet. Anything there that is not a regular file is refused.
class OutputFile {
 public:
  // Makes the folder of `path` if there is none. With kRefused a file that is there, then or at commit(), is an error
  // that names --force. Nobody may read what replaces a file who could not read that, by owner, group and mode.
  static Result<OutputFile> create(const std::string& path, Existing existing, unsigned mode = 0644);
  OutputFile(OutputFile&& other) noexcept;
  OutputFile& operator=(OutputFile&&) = delete;
  ~OutputFile();

  Status append(ByteView bytes);
  // REQUIRES: as many bytes have been appended.
  Status rewrite_front(ByteView bytes);
  // Call once, last.
  Status commit();

 private:
  OutputFile(std::string path, std::string target, Existing existing);
  Status open(unsigned mode);
  Status name_it();
  Status put_in_place();

  std::string path_;    // as it was named
  std::string target_;  // where its links lead
  std::string beside_;  // the name that it has meanwhile; empty: none
  Existing existing_;
  int fd_ = -1;  // -1: committed, or moved from
};

// A whole file at once.
Status write_output(const std::string& path, ByteView bytes, Existing existing, unsigned mode = 0644);

// Whether its last name can be that of a new file: it is there, and neither "." nor "..".
bool names_file(const std::string& path);

// Where `path` leads when its last name is a symbolic link; an error for a circle of them.
Result<std::string> follow_links(const std::string& path);

}  // namespace isthmus
