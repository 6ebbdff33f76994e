#pragma once

#include "compress/update_codec.h"

namespace isthmus::compress {

// What two updates have in common, from 0 to 1 (a copy): to find one that was copied from a sibling, or sent before by
// the same replica. Values may have been scaled, requantised or given other signs; positions stay.
//
// Sparse: the share of kept positions that coincide, 1/64 by chance. Honest siblings were measured to have 0.02 to 0.25
// (up to 70 % of their variance in common), 0.3 to 0.54 where some coordinates move much farther than others
// (log-normal, deviation e); an update and the replica's next one 0.002 to 0.01, there 0.3, since error feedback has
// taken out what was sent. Dense, where all positions coincide: 1 less the share of one's norm that the other does not
// explain, 1 - sin of their angle: 0.13 at a cosine of 0.5, 0.5 at 0.87. Honest siblings had up to 0.3. A threshold of
// 0.75 is beyond all of these. REQUIRES: check() passed for both.
double likeness(const UpdateCodec& codec, ByteView a, ByteView b);

}  // namespace isthmus::compress
