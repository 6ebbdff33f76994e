#include "compress/encoded_tensor.h"

#include <algorithm>

#include "base/digest.h"
#include "base/little_endian.h"

namespace isthmus::compress {

namespace {

decltype(PayloadHeader::digest) digest_of(const EncodedTensor& tensor) {
  Bytes head;
  append_le(head, tensor.header.codec);
  append_le(head, tensor.header.era);
  append_le(head, std::uint64_t{tensor.values->size()});
  append_le(head, std::uint64_t{tensor.tokens->size()});
  Digest digest;
  digest.update(head);
  digest.update(*tensor.values);
  digest.update(*tensor.tokens);
  const auto whole = digest.bytes();
  decltype(PayloadHeader::digest) first;
  std::copy_n(whole.begin(), first.size(), first.begin());
  return first;
}

}  // namespace

void seal(EncodedTensor& tensor) { tensor.header.digest = digest_of(tensor); }

Status check_seal(const EncodedTensor& tensor) {
  if (const auto actual = digest_of(tensor); actual != tensor.header.digest)
    return fail("a payload of {} bytes has digest {}, its header says {}", tensor.bytes(), to_hex(actual),
                to_hex(tensor.header.digest));
  return {};
}

}  // namespace isthmus::compress
