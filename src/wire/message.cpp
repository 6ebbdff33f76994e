#include "wire/message.h"

namespace isthmus {

Priority priority_of(const Message& message) {
  if (std::holds_alternative<Backward>(message)) return Priority::kGradient;
  if (std::holds_alternative<Forward>(message) || std::holds_alternative<Ask>(message))
    return Priority::kActivation;
  return Priority::kControl;
}

bool is_boundary(const Message& message) {
  return std::holds_alternative<Forward>(message) || std::holds_alternative<Backward>(message);
}

}  // namespace isthmus
