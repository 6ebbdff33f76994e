#include "router/complete_view.h"

#include <algorithm>
#include <tuple>

namespace isthmus::router {

protocol::View completed(const protocol::View& news, const protocol::View& known) {
  protocol::View view = news;
  const auto is_new = [&](const protocol::Member& member) { return news.find(member.session) != nullptr; };
  const auto is_gone = [&](const protocol::Member& member) {
    return std::ranges::find(news.gone, member.session) != news.gone.end();
  };
  for (const auto& member : known.live)
    if (!is_new(member) && !is_gone(member)) view.live.push_back(member);
  std::ranges::sort(view.live, {}, [](const protocol::Member& m) { return std::tuple(m.stage, m.replica); });
  view.since = {};
  view.gone.clear();
  return view;
}

}  // namespace isthmus::router
