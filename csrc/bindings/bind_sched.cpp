#include <pybind11/numpy.h>
#include <pybind11/stl.h>
#include <pybind11/typing.h>

#include <array>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings.hpp"
#include "columns.hpp"
#include "py_router.hpp"

namespace py = pybind11;

namespace zeta::bindings {
namespace {

runtime::ForecastMode forecast_mode(const std::string& name) {
  if (name == "auto") return runtime::ForecastMode::automatic;
  if (name == "ewma") return runtime::ForecastMode::ewma;
  if (name == "off") return runtime::ForecastMode::off;
  throw py::value_error("forecast: got " + name + ", expected auto, ewma or off");
}

std::size_t rows_of(const py::object& given) {
  return py::isinstance<py::array>(given) ? static_cast<std::size_t>(py::reinterpret_borrow<py::array>(given).size())
                                          : 0;  // column() refuses it
}

Instant deadline_of(std::span<const double> ms, std::size_t row, Instant now) {
  if (ms.empty() || !(ms[row] >= 0.0)) return kNever;
  return saturating_add(now, duration_from_seconds(ms[row] * 1e-3));
}

/// Columns in, tickets out. The GIL is released: the work grows with the rows.
py::array_t<std::uint64_t> submit_many(PyRouter& self, const py::object& prompt_tokens, const py::object& max_tokens,
                                       const py::object& deadline_ms, const py::object& complexity,
                                       const py::object& end_deadline_ms, const py::object& max_wait_ms,
                                       const py::object& priority, const py::object& tenant) {
  const std::size_t rows = rows_of(prompt_tokens);
  const auto prompts = column<std::uint32_t>(prompt_tokens, "prompt_tokens", rows, "uint32");
  const auto outputs = optional_column<std::uint32_t>(max_tokens, "max_tokens", rows, "uint32");
  const auto firsts = optional_column<double>(deadline_ms, "deadline_ms", rows, "float64");
  const auto lasts = optional_column<double>(end_deadline_ms, "end_deadline_ms", rows, "float64");
  const auto waits = optional_column<double>(max_wait_ms, "max_wait_ms", rows, "float64");
  const auto hardness = optional_column<double>(complexity, "complexity", rows, "float64");
  const auto bands = optional_column<std::uint8_t>(priority, "priority", rows, "uint8");
  std::vector<TenantId> tenants;
  if (!tenant.is_none()) {
    if (py::isinstance<py::str>(tenant)) {
      tenants.assign(1, self.tenant(tenant.ptr()));
    } else {
      for (const py::handle name : tenant) tenants.push_back(self.tenant(name.ptr()));
      if (tenants.size() != rows) {
        throw py::value_error("tenant: got " + std::to_string(tenants.size()) + " names, expected one or " +
                              std::to_string(rows));
      }
    }
  }
  std::vector<std::uint64_t> out(rows);
  runtime::Router& router = self.open();
  const Instant now = router.now();  // with the GIL: the clock may be Python's
  without_gil(self, [&] {
    router.batch([&](sched::Scheduler& scheduler, auto&& apply) {
      for (std::size_t i = 0; i < rows; ++i) {
        auto event = sched::SharedScheduler<>::make(sched::EventKind::submit, scheduler.reserve(), now);
        event.in_batch = true;
        event.request.prompt_tokens = prompts[i];
        if (!outputs.empty()) event.request.max_tokens = outputs[i];
        event.request.first_token_deadline = deadline_of(firsts, i, now);
        event.request.end_deadline = deadline_of(lasts, i, now);
        event.request.expires_at = deadline_of(waits, i, now);
        if (!hardness.empty() && hardness[i] >= 0.0) event.request.complexity = static_cast<float>(hardness[i]);
        if (!bands.empty()) event.request.priority = bands[i];
        if (!tenants.empty()) event.request.tenant = tenants[tenants.size() == 1 ? 0 : i];
        out[i] = event.ticket.value();
        apply(event);
      }
      auto settle = sched::SharedScheduler<>::make(sched::EventKind::settle, {}, now);
      apply(settle);
    });
  });
  return py::array_t<std::uint64_t>(static_cast<py::ssize_t>(rows), out.data());
}

py::tuple poll_many(PyRouter& self, std::size_t most) {
  runtime::Router& router = self.open();
  std::vector<sched::Placement> placements;
  placements.reserve(std::min<std::size_t>(most, self.config.max_running));
  const Instant now = router.now();
  without_gil(self, [&] {
    router.poll(
        0, placements.capacity(), [&](const sched::Placement& placement) { placements.push_back(placement); }, now);
  });
  const auto rows = static_cast<py::ssize_t>(placements.size());
  py::array_t<std::uint64_t> tickets(rows);
  py::array_t<std::uint8_t> models(rows);
  py::array_t<std::uint16_t> replicas(rows);
  for (std::size_t i = 0; i < placements.size(); ++i) {
    tickets.mutable_data()[i] = placements[i].ticket.value();
    models.mutable_data()[i] = static_cast<std::uint8_t>(index_of(placements[i].model));
    replicas.mutable_data()[i] = static_cast<std::uint16_t>(index_of(placements[i].replica));
  }
  return py::make_tuple(std::move(tickets), std::move(models), std::move(replicas));
}

std::size_t complete_many(PyRouter& self, const py::object& tickets, const py::object& output_tokens) {
  const std::size_t rows = rows_of(tickets);
  const auto ids = column<std::uint64_t>(tickets, "tickets", rows, "uint64");
  const auto outputs = column<std::uint32_t>(output_tokens, "output_tokens", rows, "uint32");
  runtime::Router& router = self.open();
  const Instant now = router.now();
  std::size_t done = 0;
  without_gil(self, [&] {
    router.batch([&](sched::Scheduler&, auto&& apply) {
      for (std::size_t i = 0; i < rows; ++i) {
        auto event = sched::SharedScheduler<>::make(sched::EventKind::complete, sched::Ticket{ids[i]}, now);
        event.in_batch = true;
        event.output_tokens = outputs[i];
        done += apply(event) ? 1U : 0U;
      }
      auto settle = sched::SharedScheduler<>::make(sched::EventKind::settle, {}, now);
      apply(settle);
    });
  });
  return done;
}

std::optional<std::string> outcome(PyRouter& self, std::uint64_t ticket) {
  const auto found = ask(self, [&](sched::Scheduler& s) { return s.outcome(sched::Ticket{ticket}); });
  if (!found) return std::nullopt;
  return std::string{name_of(*found)};
}

/// The predicted start of a waiting request, and the one that a rejected request was told: (mean ms, p90 ms), or None.
std::optional<std::pair<double, double>> eta_ms(PyRouter& self, std::uint64_t ticket) {
  return ask(self, [&](sched::Scheduler& s) -> std::optional<std::pair<double, double>> {
    const sched::Ticket id{ticket};
    const double factor = s.eta_p90_over_mean();
    if (const sched::Final* final = s.final_of(id)) {
      const double ms = to_seconds(final->eta) * 1e3;
      return std::pair{ms, ms * factor};
    }
    if (s.live(id) == nullptr) return std::nullopt;
    const sched::Estimate estimate = s.estimate(id);
    return std::pair{to_seconds(estimate.start_mean) * 1e3, to_seconds(estimate.start_p90) * 1e3};
  });
}

constexpr const char* kReasonNames[] = {"earliest_deadline", "promise",       "late",
                                        "lower_band",        "arrival_order", "passed_ahead"};

double ms_between(Instant from, Instant to) { return to_seconds(to - from) * 1e3; }

py::object deadline_ms(Instant latest_start, Instant from) {
  if (latest_start == kNever) return py::none();
  return py::float_(ms_between(from, latest_start));
}

py::list names_in(const PyRouter& self, ModelMask mask) {
  py::list names;
  for_each_model(mask, [&](ModelId model) { names.append(self.model_names[index_of(model)]); });
  return names;
}

/// Why a request was placed, as `explain` says it; for callers that need only that, a tenth of the time.
py::object reason_of(PyRouter& self, std::uint64_t ticket) {
  const auto reason = ask(self, [&](sched::Scheduler& s) -> std::optional<sched::Reason> {
    const sched::Decision* decision = s.decision_of(sched::Ticket{ticket});
    return decision == nullptr ? std::nullopt : std::optional{decision->reason};
  });
  return reason ? py::object{py::str{kReasonNames[static_cast<std::size_t>(*reason)]}} : py::none();
}

py::object explain(PyRouter& self, std::uint64_t ticket) {
  struct Found {
    std::optional<sched::Decision> decision;
    std::optional<sched::Slot> live;
    sched::Estimate estimate;
  };
  const Instant now = self.open().now();
  const Found found = ask(self, [&](sched::Scheduler& s) {
    Found result;
    const sched::Ticket id{ticket};
    if (const sched::Decision* decision = s.decision_of(id)) result.decision = *decision;
    if (const sched::Slot* live = s.live(id)) {
      result.live = *live;
      result.estimate = s.estimate(id);
    }
    return result;
  });
  py::dict answer;
  answer["ticket"] = ticket;
  if (found.live && found.live->phase == sched::Phase::waiting) {
    const sched::Slot& s = *found.live;
    answer["state"] = "waiting";
    answer["waited_ms"] = ms_between(s.arrival, now);
    answer["waits_for"] = names_in(self, s.waits_for);
    answer["could_use"] = names_in(self, s.request.allowed);
    answer["held_ms"] = s.hold_until == kNever ? py::object{py::none()} : py::float_(ms_between(now, s.hold_until));
    answer["slack_ms"] = deadline_ms(s.latest_start, now);
    answer["eta_ms"] = to_seconds(found.estimate.start_mean) * 1e3;
    answer["predicted_prefill_ms"] = to_seconds(s.prefill) * 1e3;
    answer["predicted_work_ms"] = to_seconds(s.work) * 1e3;
    return answer;
  }
  if (!found.decision) return py::none();
  const sched::Decision& d = *found.decision;
  answer["state"] = "placed";
  answer["reason"] = kReasonNames[static_cast<std::size_t>(d.reason)];
  answer["model"] = self.model_names[index_of(d.model)];
  answer["replica"] = self.replica_names[index_of(d.replica)];
  answer["queued_ms"] = ms_between(d.arrival, d.at);
  answer["priority"] = d.band;
  answer["slack_ms"] = deadline_ms(d.latest_start, d.at);
  answer["waited_for"] = names_in(self, d.waited_for);
  answer["had_affinity"] = d.had_affinity;
  answer["predicted_prefill_ms"] = to_seconds(d.predicted_prefill) * 1e3;
  answer["predicted_work_ms"] = to_seconds(d.predicted_work) * 1e3;
  py::dict scores;
  for (const auto& alternative : d.alternatives) {
    if (alternative.model != kNoModel) scores[self.model_names[index_of(alternative.model)]] = alternative.score;
  }
  answer["scores"] = scores;
  return answer;
}

py::object milliseconds(const std::optional<double>& seconds) {
  return seconds ? py::object{py::float_(*seconds * 1e3)} : py::none();
}

py::dict percentiles_ms(const QuantileSketch& sketch) {
  py::dict row;
  row["p50"] = milliseconds(sketch.quantile(0.5));
  row["p90"] = milliseconds(sketch.quantile(0.9));
  row["p99"] = milliseconds(sketch.quantile(0.99));
  row["seen"] = sketch.seen();
  return row;
}

py::dict correction_row(const Correction& correction) {
  py::dict row;
  row["factor"] = correction.estimate();
  row["relative_error"] = correction.relative_error();
  row["in_force"] = correction.in_force();
  row["changes"] = correction.changes();
  return row;
}

py::dict loop_stats(PyRouter& self);

py::dict stats(PyRouter& self) {
  struct ModelRow {
    double share, need, mean_output_tokens, backlog_s, arrived_work_s;
    std::uint64_t arrivals;
    std::array<std::uint32_t, sched::kMaxBands> waiting_in_band;
    std::uint32_t waiting, running;
    Correction prefill, decode;
  };
  struct ReplicaRow {
    bool is_present, is_draining;
    std::uint32_t model, in_flight, window;
    std::uint64_t kv_tokens, kv_reserved;
    route::ResponseTimes times;
    route::ExternalLoad others;
  };
  std::vector<ModelRow> models(self.config.models.size());
  std::vector<ReplicaRow> replicas;
  const Instant now = self.open().now();
  const std::size_t named = self.replica_names.size();
  const sched::Ledger ledger = ask(self, [&](sched::Scheduler& s) {
    const sched::Fleet& fleet = s.fleet();
    for (std::size_t i = 0; i < models.size(); ++i) {
      const auto id = ModelId{static_cast<std::uint8_t>(i)};
      const sched::Model& model = fleet[id];
      models[i] = {fleet.share_of(id),
                   model.decode_pace() + model.demand.need(now),
                   model.mean_output_tokens,
                   to_seconds(model.demand.backlog()),
                   to_seconds(model.arrived_work),
                   model.arrivals,
                   model.waiting_in_band,
                   model.waiting,
                   model.running,
                   model.prefill,
                   model.decode};
    }
    for (std::size_t i = 0; i < fleet.replica_slots() && i < named; ++i) {
      const auto& r = fleet.replica(ReplicaId{static_cast<std::uint16_t>(i)});
      replicas.push_back({r.is_present, r.is_draining, static_cast<std::uint32_t>(index_of(r.model)), r.in_flight,
                          r.window.limit(), r.kv_tokens, r.kv_reserved,
                          fleet.times(ReplicaId{static_cast<std::uint16_t>(i)}), r.others});
    }
    return s.ledger();
  });
  py::dict outcomes;
  for (std::size_t i = 0; i < kOutcomeCount; ++i) {
    const auto outcome = static_cast<Outcome>(i);
    if (is_final(outcome)) outcomes[py::str(std::string{name_of(outcome)})] = ledger.ended(outcome);
  }
  py::dict by_model;
  for (std::size_t i = 0; i < models.size(); ++i) {
    py::dict row;
    row["share"] = models[i].share;
    row["need"] = models[i].need;
    row["waiting"] = models[i].waiting;
    py::list by_class;
    for (std::size_t band = 0; band < std::min<std::size_t>(self.config.bands, sched::kMaxBands); ++band) {
      by_class.append(models[i].waiting_in_band[band]);
    }
    row["waiting_by_class"] = by_class;
    row["arrivals"] = models[i].arrivals;
    row["arrived_work_s"] = models[i].arrived_work_s;
    row["running"] = models[i].running;
    row["backlog_s"] = models[i].backlog_s;
    row["mean_output_tokens"] = models[i].mean_output_tokens;
    row["prefill"] = correction_row(models[i].prefill);
    row["decode"] = correction_row(models[i].decode);
    by_model[self.model_names[i]] = row;
  }
  py::dict by_replica;
  for (std::size_t i = 0; i < replicas.size(); ++i) {
    if (!replicas[i].is_present) continue;
    py::dict row;
    row["model"] = self.model_names[replicas[i].model];
    row["in_flight"] = replicas[i].in_flight;
    row["window"] = replicas[i].window;
    row["is_draining"] = replicas[i].is_draining;
    row["kv_tokens"] = replicas[i].kv_tokens;
    row["kv_reserved"] = replicas[i].kv_reserved;
    row["ttft_ms"] = percentiles_ms(replicas[i].times.ttft_s);
    row["queue_wait_ms"] = percentiles_ms(replicas[i].times.queue_wait_s);
    row["tpot_ms"] = percentiles_ms(replicas[i].times.tpot_s);
    py::dict others;
    others["requests"] = replicas[i].others.requests;
    others["kv_tokens"] = replicas[i].others.kv_tokens;
    row["external"] = replicas[i].others.is_known ? py::object{others} : py::none();
    by_replica[self.replica_names[i]] = row;
  }
  py::dict answer;
  answer["submitted"] = ledger.submitted();
  answer["waiting"] = ledger.waiting();
  answer["running"] = ledger.running();
  answer["outcomes"] = outcomes;
  answer["models"] = by_model;
  answer["replicas"] = by_replica;
  answer["loop"] = loop_stats(self);
  return answer;
}

py::object microseconds(std::int64_t ns) {
  return ns < 0 ? py::object{py::none()} : py::float_(static_cast<double>(ns) * 1e-3);
}

/// The newest round of the loop. Reads what the loop publishes and holds it up in nothing.
py::dict loop_stats(PyRouter& self) {
  runtime::LiveLoop<>& loop = self.open().loop();
  runtime::LoopRound round;
  const bool has_round = loop.read(round);
  (void)loop.nets().collect();
  constexpr const char* kModes[] = {"auto", "ewma", "off"};
  py::dict answer;
  answer["form"] = self.has_thread() ? "native" : "caller";
  answer["ticks"] = round.rounds;
  const auto add = [&answer](const char* name, const runtime::Percentiles& of) {
    answer[py::str(std::string{name} + "_us_p50")] = microseconds(of.p50_ns);
    answer[py::str(std::string{name} + "_us_p99")] = microseconds(of.p99_ns);
  };
  add("late", round.late);
  add("duration", round.took);
  add("forecast", round.forecast);
  add("net", round.net);
  answer["forecast"] = kModes[static_cast<std::size_t>(loop.mode())];
  answer["forecasts"] = round.forecasts;
  answer["is_trusted"] = round.is_trusted != 0;
  answer["is_foreseen"] = round.is_foreseen != 0;
  answer["foreseen_ticks"] = round.foreseen;
  answer["actuation_delay_s"] = static_cast<double>(round.actuation_delay_ns) * 1e-9;
  answer["net"] = self.net_name();
  answer["net_version"] = round.net_number;
  answer["is_net_used"] = round.is_net_used != 0;
  py::dict runs;
  runs["runs"] = round.net_stats.runs;
  runs["failures"] = round.net_stats.failures;
  runs["late"] = round.net_stats.late;
  runs["stopped"] = round.net_stats.stopped;
  runs["rests"] = round.net_stats.rests;
  runs["tensor_allocations"] = round.net_stats.tensor_allocations;
  runs["tensor_allocations_from_heap"] = round.net_stats.tensor_allocations_from_heap;
  answer["net_runs"] = runs;
  py::dict models;
  for (std::size_t i = 0; has_round && i < round.models; ++i) {
    const runtime::LoopRound::Model& model = round.of_model[i];
    py::dict row;
    row["share"] = model.share;
    row["need"] = model.need;
    constexpr const char* kNames[] = {"work_60s_p50", "work_60s_p90", "work_60s_p99"};
    for (std::size_t q = 0; q < model.work.size(); ++q) {
      row[kNames[q]] = model.work[q] >= 0.0 ? py::object{py::float_(model.work[q])} : py::none();
    }
    models[self.model_names[i]] = row;
  }
  answer["models"] = models;
  return answer;
}

/// What a loop in Python plans from: a row for each model (decode pace, due pressure, backlog in GPU-seconds, waiting,
/// running, completions per second, requests let in so far and their predicted work in seconds, share in force, need),
/// and each model's device, -1 where it contends with nobody.
py::tuple demands(PyRouter& self) {
  const std::size_t n = self.config.models.size();
  constexpr std::size_t kColumns = 10;
  py::array_t<double> rows(std::vector<std::size_t>{n, kColumns});
  py::array_t<std::int64_t> devices(static_cast<py::ssize_t>(n));
  double* const row = rows.mutable_data();
  std::int64_t* const device = devices.mutable_data();
  const Instant now = self.open().now();
  ask(self, [&](sched::Scheduler& s) {
    for (std::size_t i = 0; i < n; ++i) {
      const auto id = ModelId{static_cast<std::uint8_t>(i)};
      const sched::Model& model = s.fleet()[id];
      const share::ModelDemand demand = sched::demand_of(model, now);
      const double columns[] = {demand.decode_pace,
                                demand.due_pressure,
                                demand.backlog_work_s,
                                static_cast<double>(demand.waiting),
                                static_cast<double>(demand.running),
                                demand.service_rate_rps,
                                static_cast<double>(model.arrivals),
                                to_seconds(model.arrived_work),
                                s.fleet().share_of(id),
                                model.decode_pace() + model.demand.need(now)};
      static_assert(std::size(columns) == kColumns);
      std::copy(std::begin(columns), std::end(columns), row + kColumns * i);
      device[i] = s.fleet().device_of(id).config.is_shared
                      ? static_cast<std::int64_t>(index_of(s.fleet()[id].config.device))
                      : -1;
    }
    return true;
  });
  return py::make_tuple(rows, devices);
}

/// Shares of all models of one device, planned elsewhere: (model, share), each model of the device once.
void set_shares(PyRouter& self, const std::vector<std::pair<std::uint8_t, double>>& shares) {
  double sum = 0.0;
  for (const auto& [model, share] : shares) {
    if (model >= self.config.models.size() || !(share >= 0.0 && share <= 1.0)) {
      throw py::value_error("shares: model " + std::to_string(model) + " with share " + std::to_string(share) +
                            "; expected a model's number and a share in [0, 1]");
    }
    sum += share;
  }
  if (shares.empty() || !(sum > 0.999 && sum < 1.001)) {
    throw py::value_error("shares add up to " + std::to_string(sum) + "; expected those of one device, which make 1");
  }
  runtime::Router& router = self.open();
  const Instant now = router.now();
  router.batch([&](sched::Scheduler&, auto&& apply) {
    for (std::size_t i = 0; i < shares.size(); ++i) {
      auto event = sched::SharedScheduler<>::make(sched::EventKind::set_share, {}, now);
      event.model = ModelId{shares[i].first};
      event.quality = shares[i].second;
      event.in_batch = i + 1 < shares.size();
      apply(event);
    }
  });
}

void set_actuation_delay(PyRouter& self, double seconds) {
  if (!(seconds >= 0.0 && seconds <= 3600.0)) {
    throw py::value_error("actuation delay: got " + std::to_string(seconds) + " s, expected 0 to 3600 s");
  }
  self.open().loop().set_actuation_delay(duration_from_seconds(seconds));
}

bool fail(PyRouter& self, const py::object& ticket, bool requeue, bool timed_out) {
  const std::uint64_t id =
      py::isinstance<py::int_>(ticket) ? ticket.cast<std::uint64_t>() : ticket.attr("ticket").cast<std::uint64_t>();
  return self.open().fail(sched::Ticket{id}, requeue, timed_out ? Outcome::failed_timeout : Outcome::failed_replica);
}

/// One rare event in its turn.
template <class Fill>
sched::EventRecord apply_event(PyRouter& self, sched::EventKind kind, Fill&& fill) {
  runtime::Router& router = self.open();
  auto event = sched::SharedScheduler<>::make(kind, {}, router.now());
  fill(event);
  router.batch([&](sched::Scheduler&, auto&& apply) { apply(event); });
  return event;
}

std::optional<std::uint16_t> add_replica(PyRouter& self, std::uint8_t model, const std::string& name,
                                         const std::optional<std::string>& url, std::uint32_t max_in_flight,
                                         std::uint32_t max_batch, std::uint64_t kv_tokens) {
  const auto event = apply_event(self, sched::EventKind::add_replica, [&](sched::EventRecord& e) {
    e.model = ModelId{model};
    e.max_in_flight = max_in_flight;
    e.max_batch = max_batch;
    e.kv_tokens = kv_tokens;
  });
  if (event.replica == kNoReplica) return std::nullopt;
  self.replica_names.set(index_of(event.replica), name);
  if (url) self.replica_urls.set(index_of(event.replica), *url);
  return static_cast<std::uint16_t>(index_of(event.replica));
}

/// By replica number: (requests in flight, KV tokens set aside, KV tokens in all, requests of others or -1 where that
/// is not known, KV tokens of others); zeros where there is none.
py::array_t<std::int64_t> replica_loads(PyRouter& self) {
  const std::size_t n = self.replica_names.size();
  constexpr std::size_t kColumns = 5;
  py::array_t<std::int64_t> rows(std::vector<std::size_t>{n, kColumns});
  std::int64_t* const row = rows.mutable_data();
  ask(self, [&](sched::Scheduler& s) {
    for (std::size_t i = 0; i < n; ++i) {
      const bool is_there = i < s.fleet().replica_slots();
      const route::Replica r =
          is_there ? s.fleet().replica(ReplicaId{static_cast<std::uint16_t>(i)}) : route::Replica{};
      const std::int64_t columns[] = {static_cast<std::int64_t>(r.in_flight), static_cast<std::int64_t>(r.kv_reserved),
                                      static_cast<std::int64_t>(r.kv_tokens),
                                      r.others.is_known ? std::int64_t{r.others.requests} : -1,
                                      static_cast<std::int64_t>(r.others.kv_tokens)};
      static_assert(std::size(columns) == kColumns);
      std::copy(std::begin(columns), std::end(columns), row + kColumns * i);
    }
    return true;
  });
  return rows;
}

using ExternalLoads = std::vector<std::tuple<std::uint16_t, std::optional<std::uint32_t>, std::uint64_t>>;

/// What others hold on replicas: (replica, requests or None where that is not known, KV tokens), in one turn.
void set_external_loads(PyRouter& self, const ExternalLoads& loads) {
  runtime::Router& router = self.open();
  const Instant now = router.now();
  router.batch([&](sched::Scheduler&, auto&& apply) {
    for (const auto& [replica, requests, kv_tokens] : loads) {
      auto event = sched::SharedScheduler<>::make(sched::EventKind::external_load, {}, now);
      event.replica = ReplicaId{replica};
      event.max_in_flight = requests ? std::min(*requests, sched::kUnknownLoad - 1) : sched::kUnknownLoad;
      event.kv_tokens = kv_tokens;
      event.in_batch = true;
      apply(event);
    }
    auto settle = sched::SharedScheduler<>::make(sched::EventKind::settle, {}, now);
    apply(settle);
  });
}

using Swaps = std::vector<std::tuple<std::uint8_t, std::optional<std::uint8_t>, std::optional<std::uint8_t>>>;

/// The changes of resident models to carry out: (device, model to unload or None, model to load or None), each once.
Swaps next_swaps(PyRouter& self) {
  const auto number = [](ModelId model) {
    return model == kNoModel ? std::nullopt : std::optional{static_cast<std::uint8_t>(index_of(model))};
  };
  return ask(self, [&](sched::Scheduler& s) {
    Swaps swaps;
    while (const auto swap = s.next_swap()) {
      swaps.emplace_back(static_cast<std::uint8_t>(index_of(swap->device)), number(swap->unload), number(swap->load));
    }
    return swaps;
  });
}

py::list next_ended(PyRouter& self) {
  return py::cast(ask(self, [](sched::Scheduler& s) {
    std::vector<std::uint64_t> tickets;
    while (const auto ticket = s.next_ended()) tickets.push_back(ticket->value());
    return tickets;
  }));
}

py::dict replay_log(const sched::SchedulerConfig& config, const py::buffer& events) {
  const py::buffer_info info = events.request();
  const std::size_t bytes = static_cast<std::size_t>(info.size * info.itemsize);
  if (bytes % sizeof(runtime::LoggedEvent) != 0) {
    throw py::value_error("decision log: " + std::to_string(bytes) + " bytes of events, expected a multiple of " +
                          std::to_string(sizeof(runtime::LoggedEvent)) + "; the file is truncated or of another build");
  }
  runtime::LogReplay replay;
  {
    const py::gil_scoped_release released;
    replay = runtime::replay_events(config, static_cast<const runtime::LoggedEvent*>(info.ptr),
                                    bytes / sizeof(runtime::LoggedEvent));
  }
  py::dict answer;
  answer["events"] = replay.events;
  answer["hash"] = replay.hash;
  answer["first_difference"] = replay.first_difference < 0 ? py::object{py::none()} : py::int_(replay.first_difference);
  return answer;
}

}  // namespace

void bind_sched(py::module_& module) {
  make_lease_type(module);
  py::class_<PyRouter> router_class(module, "Router", "The native router. Private: use zeta.Router.");
  router_class
      .def(py::init([](sched::SchedulerConfig config, py::object clock, std::int64_t tick_interval_ns, bool has_thread,
                       const std::string& forecast, py::object ask_net) {
             return std::make_unique<PyRouter>(std::move(config), std::move(clock), tick_interval_ns, has_thread,
                                               forecast_mode(forecast), std::move(ask_net));
           }),
           py::kw_only(), py::arg("config"), py::arg("clock"), py::arg("tick_interval_ns"), py::arg("has_thread"),
           py::arg("forecast") = "auto", py::arg("ask_net") = py::none())
      .def(
          "_name_model", [](PyRouter& self, std::size_t i, const std::string& name) { self.model_names.set(i, name); },
          py::arg("index"), py::arg("name"))
      .def(
          "_name_replica",
          [](PyRouter& self, std::size_t i, const std::string& name, const std::optional<std::string>& url) {
            self.replica_names.set(i, name);
            if (url) self.replica_urls.set(i, *url);
          },
          py::arg("index"), py::arg("name"), py::arg("url"))
      .def(
          "_tenant_id", [](PyRouter& self, const py::object& name) { return index_of(self.tenant(name.ptr())); },
          py::arg("name"))
      .def("submit_many", &submit_many, py::kw_only(), py::arg("prompt_tokens"), py::arg("max_tokens") = py::none(),
           py::arg("deadline_ms") = py::none(), py::arg("complexity") = py::none(),
           py::arg("end_deadline_ms") = py::none(), py::arg("max_wait_ms") = py::none(),
           py::arg("priority") = py::none(), py::arg("tenant") = py::none(),
           "Columns (uint32 tokens, float64 milliseconds with NaN for none, float64 complexity, uint8 priority) to\n"
           "uint64 tickets, in one turn.")
      .def("poll_many", &poll_many, py::arg("n"), "Up to n placements: (tickets, model ids, replica ids).")
      .def("complete_many", &complete_many, py::arg("tickets"), py::arg("output_tokens"),
           "Completes a column of tickets; how many were running.")
      .def("fail", &fail, py::arg("lease"), py::arg("requeue") = false, py::kw_only(), py::arg("timed_out") = false,
           "The replica failed it. With requeue it waits again, at the front, at most three times.")
      .def(
          "feedback",
          [](PyRouter& self, std::uint64_t ticket, double quality) {
            if (!(quality >= 0.0 && quality <= 1.0)) {
              throw py::value_error("quality: got " + std::to_string(quality) + ", expected 0 (bad) to 1 (good)");
            }
            bool is_known = false;
            runtime::Router& router = self.open();
            auto event =
                sched::SharedScheduler<>::make(sched::EventKind::feedback, sched::Ticket{ticket}, router.now());
            event.quality = quality;
            router.batch([&](sched::Scheduler&, auto&& apply) { is_known = apply(event); });
            return is_known;
          },
          py::arg("ticket"), py::arg("quality"),
          "How well the answer was, 0 to 1: moves the model's quality. False for a ticket no longer kept.")
      .def("_outcome", &outcome, py::arg("ticket"))
      .def("_eta_ms", &eta_ms, py::arg("ticket"))
      .def("explain", &explain, py::arg("ticket"),
           "Why a request was placed where it was, or what it waits for; None when no longer kept.")
      .def("stats", &stats,
           "Counts and shares now: submitted, waiting, running, outcomes, models, replicas; and the allocation loop:\n"
           "its rounds, their times, the forecast and its net.")
      .def("_loop_stats", &loop_stats)
      .def(
          "_set_net",
          [](PyRouter& self, const py::typing::Optional<OnnxNet>& net, py::object name) {
            self.set_net(net.is_none() ? nullptr : net.cast<OnnxNet*>(), std::move(name));
          },
          py::arg("net"), py::arg("name"), "The net that the loop uses from its next round on; takes it over.")
      .def("_demands", &demands)
      .def("_set_shares", &set_shares, py::arg("shares"))
      .def(
          "_set_planned_elsewhere", [](PyRouter& self, bool is_so) { self.open().loop().set_planned_elsewhere(is_so); },
          py::arg("is_so"))
      .def("set_actuation_delay", &set_actuation_delay, py::arg("seconds"),
           "How long a plan of shares takes to act, in seconds, from the loop's next round on; 0 (the default): at\n"
           "once. From 5 s on plans look ahead, as far as forecasts have lately been good.")
      .def("_add_replica", &add_replica, py::arg("model"), py::arg("name"), py::arg("url"), py::arg("max_in_flight"),
           py::arg("max_batch"), py::arg("kv_tokens"))
      .def(
          "_drain_replica",
          [](PyRouter& self, std::uint16_t id) {
            apply_event(self, sched::EventKind::drain_replica, [&](auto& e) { e.replica = ReplicaId{id}; });
          },
          py::arg("replica"))
      .def(
          "_resume_replica",
          [](PyRouter& self, std::uint16_t id) {
            apply_event(self, sched::EventKind::resume_replica, [&](auto& e) { e.replica = ReplicaId{id}; });
          },
          py::arg("replica"))
      .def(
          "_remove_replica",
          [](PyRouter& self, std::uint16_t id) {
            apply_event(self, sched::EventKind::remove_replica, [&](auto& e) { e.replica = ReplicaId{id}; });
          },
          py::arg("replica"))
      .def("_replica_loads", &replica_loads)
      .def("_set_external_loads", &set_external_loads, py::arg("loads"))
      .def("_next_swaps", &next_swaps)
      .def(
          "_loaded",
          [](PyRouter& self, std::uint8_t device, std::optional<std::uint8_t> model) {
            if (device >= self.config.devices.size() || (model && *model >= self.config.models.size())) {
              throw py::value_error("loaded: device " + std::to_string(device) + " or its model does not exist");
            }
            apply_event(self, sched::EventKind::loaded, [&](auto& e) {
              e.device = DeviceId{device};
              e.model = model ? ModelId{*model} : kNoModel;
            });
          },
          py::arg("device"), py::arg("model"), "A swap device now holds a model, as asked for or not; None: nothing.")
      .def(
          "fileno", [](PyRouter& self) { return self.open().waker(0).fd(); },
          "A descriptor that is readable while poll has something; drain it with poll.")
      .def(
          "_collects_itself",
          [](PyRouter& self, int channel) { self.open().set_collects_itself(channel == 0 ? 0 : 1); },
          py::arg("channel"),
          "The one collector of a channel polls after each of its own calls; only the router's thread wakes it.")
      .def("_lease_fileno", [](PyRouter& self) { return self.open().waker(1).fd(); })
      .def(
          "_clear_wake", [](PyRouter& self, int channel) { self.open().waker(channel == 0 ? 0 : 1).clear(); },
          py::arg("channel"))
      .def("_next_ended", &next_ended)
      .def("_reason", &reason_of, py::arg("ticket"))
      .def(
          "advance", [](PyRouter& self) { self.open().advance(); },
          "Lets due expiries and ends of holds happen. The router's thread does this; for virtual time.")
      .def(
          "tick", [](PyRouter& self) { self.open().tick(); },
          "One round of the allocation loop. The router's thread does this; for virtual time.")
      .def(
          "next_timer_ns",
          [](PyRouter& self) -> std::optional<std::int64_t> {
            const Instant at = self.open().next_timer();
            return at == kNever ? std::nullopt : std::optional{to_ns(at)};
          },
          "When advance next has something to do, on the router's clock; None: never.")
      .def("_event_hash",
           [](PyRouter& self) { return ask(self, [](sched::Scheduler& s) { return s.hash().value(); }); })
      .def(
          "_idle_capacity_ticket",
          [](PyRouter& self) -> std::optional<std::uint64_t> {
            return ask(self, [](sched::Scheduler& s) { return s.ticket_with_idle_capacity(); });
          },
          "For tests: a waiting request that a replica could take now; None if the router is work-conserving.")
      .def("_log_to", &PyRouter::log_to, py::arg("path"), py::arg("header"))
      .def("_flush_log", [](PyRouter& self) { self.open().flush_log(); })
      .def("_reset_after_fork", &PyRouter::reset_after_fork)
      .def("_stop", &PyRouter::stop, "For the end of the process: ends the thread, writes the log out.")
      .def("close", &PyRouter::close, "Stops the thread and wakes every waiter; further calls raise ClosedError.")
      .def_property_readonly("is_closed", &PyRouter::is_closed)
      .def_property_readonly("ticks", [](PyRouter& self) { return self.open().ticks(); });
  add_hot_methods(router_class);
  module.def("replay_log", &replay_log, py::arg("config"), py::arg("events"));
  module.attr("LOGGED_EVENT_BYTES") = sizeof(runtime::LoggedEvent);
}

}  // namespace zeta::bindings
