# Writes OUT, which knows the digest of all headers under SOURCE.
file(GLOB_RECURSE headers RELATIVE ${SOURCE} ${SOURCE}/*.h)
list(SORT headers)
foreach(header ${headers})
  file(SHA256 ${SOURCE}/${header} digest)
  string(APPEND all "${header} ${digest}\n")
endforeach()
string(SHA256 digest "${all}")
file(WRITE ${OUT} "#include \"base/headers_digest.h\"\n
namespace isthmus {\n
const char* headers_digest() { return \"${digest}\"; }\n
}  // namespace isthmus\n")
