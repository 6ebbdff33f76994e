#include "lab/sweep_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>

#include "lab/byte_chart.h"
#include "lab/chart.h"
#include "lab/curve_chart.h"

namespace isthmus::lab {

namespace {

// "250", "1.5 k", "20 M".
std::string scaled(double value) {
  for (const auto& [unit, letter] :
       {std::pair(1e12, "T"), std::pair(1e9, "G"), std::pair(1e6, "M"), std::pair(1e3, "k")})
    if (std::abs(value) >= unit * 0.9999) return fmt::format("{:.3g} {}", value / unit, letter);
  return fmt::format("{:.3g}", value);
}
std::string bytes_label(double value) { return value >= 999.9 ? scaled(value) + "B" : scaled(value) + " B"; }
std::string seconds_label(double value) {
  if (value < 59.9) return fmt::format("{:.3g} s", value);
  if (value < 3599) return fmt::format("{:.3g} min", value / 60);
  if (value < 86399) return fmt::format("{:.3g} h", value / 3600);
  return fmt::format("{:.3g} d", value / 86400);
}

using Measure = std::function<double(const SweepRow&, const SweepRow::Evaluation&)>;

// A run that has gone astray must not flatten the others: nothing above a guess that knows nothing.
CurveChart loss_chart(const SweepResults& results, const Measure& measure) {
  return {results, "validation loss, nats per token", false, results.uniform_loss * 1.05, [&](const SweepRow& row) {
            std::vector<CurveChart::Point> points;
            for (const auto& evaluation : row.evaluations)
              points.push_back({measure(row, evaluation), evaluation.loss});
            return points;
          }};
}

CurveChart training_chart(const SweepResults& results) {
  return {results, "training loss against the reference, %", true, 25, [](const SweepRow& row) {
            std::vector<CurveChart::Point> points;
            for (const auto& stretch : row.training_gaps)
              if (stretch.seeds > 0) points.push_back({static_cast<double>(stretch.last_step), stretch.percent});
            return points;
          }};
}

std::string html_table(const SweepResults& results) {
  std::string out =
      "<table><thead><tr><th>row<th>codec<th class=\"n\">numbers<th>values<th class=\"n\">B/token/hop<br>forward + "
      "backward<th class=\"n\">+ ids<th class=\"n\">less than<br>dense bf16"
      "<th class=\"n\">validation loss<th class=\"n\">seeds<th class=\"n\">gap to reference, %";
  if (!results.baseline.empty()) out += fmt::format("<th class=\"n\">gap to<br>{}, %", escaped(results.baseline));
  out += "<th class=\"n\">parameters";
  for (const auto& link : results.links) out += fmt::format("<th class=\"n\">s/step at<br>{}", link_text(link));
  out += "</tr></thead><tbody>\n";
  for (std::size_t r = 0; r < results.rows.size(); ++r) {
    const auto& row = results.rows[r];
    out += fmt::format(
        "<tr><td><svg class=\"swatch\" viewBox=\"0 0 26 10\"><line x1=\"0\" x2=\"26\" y1=\"5\" y2=\"5\" stroke=\"{}\" "
        "stroke-width=\"2.5\" stroke-dasharray=\"{}\"/></svg>{}<td>{}<td class=\"n\">{}<td>{}",
        colour_of(r), dash_of(r), escaped(row.name), escaped(row.codec), row.columns, escaped(row.values));
    if (row.seeds == 0) {
      out += "<td colspan=\"12\" class=\"missing\">no run of this row has finished</tr>\n";
      continue;
    }
    const bool has_reference = !row.reference.empty() && row.reference != row.name;
    out += fmt::format(
        "<td class=\"n\">{:.4g} + {:.4g}<td class=\"n\">{:.3g}<td class=\"n\">{}<td class=\"n\">{}<td "
        "class=\"n\">{}<td class=\"n\">{}",
        row.forward_bytes, row.backward_bytes, row.token_bytes,
        row.dense_ratio > 0 ? fmt::format("{:.3g}×", row.dense_ratio) : "–", loss_text(row.validation_loss, row.seeds),
        row.seeds,
        has_reference
            ? fmt::format("{}<small>{}</small>", gap_text(row.reference_gap, row.seeds), escaped(row.reference))
            : "–");
    if (!results.baseline.empty())
      out +=
          fmt::format("<td class=\"n\">{}", row.name == results.baseline ? "–" : gap_text(row.baseline_gap, row.seeds));
    out += fmt::format("<td class=\"n\">{}", scaled(static_cast<double>(row.parameters)));
    for (const double step : row.step_seconds) out += fmt::format("<td class=\"n\">{:.3g}", step);
    out += "</tr>\n";
  }
  return out + "</tbody></table>\n";
}

constexpr const char* kStyle = R"(
body{font:15px/1.45 system-ui,sans-serif;color:#1c1c1c;background:#fff;max-width:1280px;margin:28px auto 60px;padding:0 20px}
h1{font-size:25px;margin:0 0 4px}h2{font-size:18px;margin:38px 0 2px}p{margin:2px 0 10px;color:#444;max-width:90ch}
svg{width:100%;max-width:1120px;height:auto;display:block;font-family:system-ui,sans-serif}
.grid{stroke:#e9e9e9}.axis{stroke:#777}.zero{stroke:#888;stroke-dasharray:4 3}
.tick{font-size:12px;fill:#444}.name{font-size:13px;fill:#1c1c1c}.label{font-size:12px;paint-order:stroke;stroke:#fff;stroke-width:3px;stroke-linejoin:round}
.leader{fill:none;stroke-width:.8;stroke-dasharray:1.5 2.5;opacity:.55}
.frontier{fill:none;stroke:#bbb;stroke-width:1.4}
.lines:hover .series,.points:hover .series{opacity:.18}.lines .series:hover,.points .series:hover{opacity:1}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:13px;white-space:nowrap;font-variant-numeric:tabular-nums}
th{text-align:left;font-weight:600;border-bottom:1.5px solid #777;padding:5px 9px;vertical-align:bottom;line-height:1.25}
td{padding:4px 9px;border-bottom:1px solid #eee}.n{text-align:right}small{display:block;color:#666;font-size:11px;line-height:1.1}
.missing{color:#a00}.swatch{width:26px;height:10px;display:inline-block;margin-right:7px}
details{margin-top:10px}summary{cursor:pointer;font-size:14px;color:#1c1c1c}
@media print{details{display:block}}
)";

}  // namespace

std::string sweep_report(const SweepResults& results) {
  std::string out = fmt::format(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
      "content=\"width=device-width\">\n<title>{}</title><style>{}</style></head><body>\n",
      escaped(results.name), kStyle);
  std::string seeds;
  for (const auto seed : results.seeds) seeds += fmt::format("{}{}", seeds.empty() ? "" : ", ", seed);
  out += fmt::format(
      "<h1>{}</h1>\n<p>{} rows, {} steps, {} tokens each, in the same order; seed{}.{}</p>\n", escaped(results.name),
      results.rows.size(), results.steps, scaled(static_cast<double>(results.tokens)),
      results.seeds.size() > 1 ? "s " + seeds : " " + seeds,
      results.seeds.size() > 1 ? " Points are means over the seeds, whiskers reach from the least to the most." : "");

  if (const ByteChart chart(results); !chart.empty())
    out +=
        "<h2>What the bytes cost</h2>\n<p>After equal tokens. The grey line joins the rows that no other beats in both "
        "figures.</p>\n" +
        chart.draw();

  const CurveChart by_tokens =
      loss_chart(results, [](const SweepRow&, const SweepRow::Evaluation& e) { return static_cast<double>(e.tokens); });
  if (!by_tokens.empty()) {
    Axis x;
    x.to = by_tokens.most_x();
    x.ticks = linear_ticks(0, x.to, 8);
    x.label = scaled;
    out += "<h2>Loss against tokens</h2>\n" + by_tokens.draw(x, "tokens trained on");
  }
  const CurveChart by_bytes =
      loss_chart(results, [](const SweepRow&, const SweepRow::Evaluation& e) { return e.hop_bytes; });
  if (!by_bytes.empty()) {
    Axis x = log_axis(by_bytes.least_x(), by_bytes.most_x());
    x.label = bytes_label;
    out += "<h2>Loss against bytes</h2>\n<p>Payload that crossed one boundary, both ways, token ids included.</p>\n" +
           by_bytes.draw(x, "bytes over one boundary");
  }
  if (const CurveChart training = training_chart(results); !training.empty()) {
    Axis x;
    x.to = training.most_x();
    x.ticks = linear_ticks(0, x.to, 8);
    x.label = [](double v) { return fmt::format("{:g}", v); };
    out +=
        "<h2>Training loss against the reference</h2>\n<p>The same batches, so that small differences show; each point "
        "is the mean of the steps since the one before.</p>\n" +
        training.draw(x, "step");
  }
  out +=
      "<h2>Loss against seconds</h2>\n<p>Predicted: steps times the step time of the event simulation, with the "
      "compute times measured for each stage while it trained on one core.</p>\n";
  for (std::size_t l = 0; l < results.links.size(); ++l) {
    const CurveChart by_seconds = loss_chart(results, [l](const SweepRow& row, const SweepRow::Evaluation& e) {
      return static_cast<double>(e.step) * row.step_seconds[l];
    });
    if (by_seconds.empty()) continue;
    Axis x = log_axis(by_seconds.least_x(), by_seconds.most_x());
    x.ticks = clock_ticks(x.from, x.to);
    if (x.ticks.size() < 3) x.ticks = log_ticks(x.from, x.to);
    x.label = seconds_label;
    out += fmt::format("<details{}><summary>{}</summary>\n{}</details>\n", l == 0 ? " open" : "",
                       link_text(results.links[l]),
                       by_seconds.draw(x, "predicted time at " + link_text(results.links[l])));
  }
  out += "<h2>Table</h2>\n<div class=\"wide\">" + html_table(results) + "</div>\n</body></html>\n";
  return out;
}

}  // namespace isthmus::lab
