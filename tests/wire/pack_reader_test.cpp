#include "wire/pack_reader.h"

#include <gtest/gtest.h>

#include <limits>
#include <msgpack.hpp>

namespace isthmus::wire {
namespace {

template <class T>
Bytes packed(const T& value) {
  msgpack::sbuffer buffer;
  msgpack::pack(buffer, value);
  return Bytes(buffer.data(), buffer.data() + buffer.size());
}

// The library that writes bodies is the judge.
TEST(PackReader, ReadsNumbersOfEveryWidth) {
  for (int bits = 0; bits < 64; ++bits)
    for (const std::uint64_t n : {(1ull << bits) - 1, 1ull << bits, (1ull << bits) + 1, ~0ull >> bits}) {
      EXPECT_EQ(PackReader(packed(n)).number(UINT64_MAX), n);
      EXPECT_EQ(PackReader(packed(n)).real(), static_cast<double>(n));
      const auto whole = -static_cast<std::int64_t>(n >> 1);
      EXPECT_EQ(PackReader(packed(whole)).real(), static_cast<double>(whole));
    }
  for (const double d : {0.1, -1e300, 1e-320, 5.0, -3.0, std::numeric_limits<double>::infinity()})
    EXPECT_EQ(PackReader(packed(d)).real(), d);
  EXPECT_EQ(PackReader(packed(0.5f)).real(), 0.5);
  const Bytes two_bytes = packed(256);
  PackReader large(two_bytes);
  EXPECT_EQ(large.number(255), 0u);
  EXPECT_EQ(large.error(), "256 is more than 255");
}

TEST(PackReader, ReadsTextsBytesAndListsOfEveryWidth) {
  for (const std::size_t size : {0, 1, 31, 32, 255, 256, 65'535, 65'536}) {
    const std::string text(size, 'x');
    const Bytes one = packed(text);
    PackReader in(one);
    EXPECT_EQ(in.text(size), text);
    EXPECT_FALSE(in.failed()) << in.error();
    EXPECT_TRUE(size == 0 || PackReader(one).text(size - 1).empty());
    const Bytes two = packed(std::vector<unsigned char>(size, 7));
    EXPECT_EQ(PackReader(two).binary(size).size(), size);
    const Bytes three = packed(std::vector<int>(size, 7));
    EXPECT_EQ(PackReader(three).array(size, size), size);
  }
}

TEST(PackReader, TakesNothingForSomethingElse) {
  // A marker of every kind, with enough behind it.
  for (int marker = 0; marker < 256; ++marker) {
    Bytes bytes(300, 0);
    bytes[0] = static_cast<std::uint8_t>(marker);
    PackReader number(bytes), real(bytes), flag(bytes), text(bytes), binary(bytes), list(bytes);
    number.number(UINT64_MAX);
    real.real();
    flag.flag();
    text.text(0);
    binary.binary(0);
    list.array(0, 16);
    const bool is_number = marker < 0x80 || (marker >= 0xcc && marker <= 0xcf);
    EXPECT_EQ(number.failed(), !is_number) << marker;
    EXPECT_EQ(real.failed(), !is_number && (marker < 0xca || marker > 0xd3) && marker < 0xe0) << marker;
    EXPECT_EQ(flag.failed(), marker != 0xc2 && marker != 0xc3) << marker;
    EXPECT_EQ(text.failed(), marker != 0xa0 && (marker < 0xd9 || marker > 0xdb)) << marker;
    EXPECT_EQ(binary.failed(), marker < 0xc4 || marker > 0xc6) << marker;
    EXPECT_EQ(list.failed(), (marker & 0xf0) != 0x90 && marker != 0xdc && marker != 0xdd) << marker;
  }
}

TEST(PackReader, StopsAtTheFirstError) {
  const Bytes bytes{0xc3, 0x05, 0x07};
  PackReader in(bytes);
  EXPECT_EQ(in.number(9), 0u);
  EXPECT_EQ(in.number(9), 0u);
  EXPECT_FALSE(in.flag());
  EXPECT_EQ(in.error(), "expected a number");
}

// Nothing is made room for on the word of four bytes.
TEST(PackReader, CountsNoMoreElementsThanThereAreBytes) {
  const Bytes bytes{0xdd, 0xff, 0xff, 0xff, 0xff, 0x00};
  PackReader in(bytes);
  EXPECT_EQ(in.array(0, UINT32_MAX), 0u);
  EXPECT_EQ(in.error(), "4294967295 elements in 1 bytes");
}

}  // namespace
}  // namespace isthmus::wire
