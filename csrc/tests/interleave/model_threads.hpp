#pragma once
// How the model runs its threads in turn, stops one, and gives up. Part of model.hpp, which says what it promises.

#include "interleave/model.hpp"

namespace zeta::interleave {

inline void Model::entry() {
  Fiber::entered(current_model()->main_);
  for (;;) {
    Model& model = *current_model();
    const Body body = model.threads_[model.current_].body;
    body.call(body.self);
    model.finish();
  }
}

inline bool Model::run_threads(std::size_t count) {
  if (!failure_.empty()) return false;
  for (std::size_t t = 0; t < kMaxThreads; ++t) join(known_, threads_[t].clock);
  live_ = 0;
  for (std::size_t t = 0; t < count; ++t) {
    threads_[t].clock = known_;
    threads_[t].is_running = true;
    threads_[t].steps = 0;
    threads_[t].priority = (schedule_rng_.next_u64() >> 1U) | (1ULL << 62U);
    ++live_;
  }
  changes_left_ = pct_changes_;
  next_low_priority_ = 1ULL << 32U;
  is_held_ = freeze_.is_active && freeze_.is_alone && !has_run_;
  current_ = is_held_ ? freeze_.thread : next_thread();
  begin_turn();
  Fiber::swap(main_, *threads_[current_].fiber);
  current_ = kMain;
  for (std::size_t t = 0; t < count; ++t) {
    if (threads_[t].is_running) threads_[t].fiber->reset();  // frozen, or given up
    threads_[t].is_running = false;
  }
  for (std::size_t t = 0; t < kMaxThreads; ++t) join(known_, threads_[t].clock);
  has_run_ = true;
  return failure_.empty();
}

inline std::size_t Model::next_thread() {
  if (is_pct_) {
    std::size_t best = kMain;
    for (std::size_t t = 0; t < kMaxThreads; ++t) {
      if (is_runnable(t) && (best == kMain || threads_[t].priority > threads_[best].priority)) best = t;
    }
    return best;
  }
  std::size_t skip = schedule_rng_.next_below(live_);
  for (std::size_t t = 0;; ++t) {
    if (is_runnable(t) && skip-- == 0) return t;
  }
}

inline void Model::begin_turn() {
  if (is_held_) {
    countdown_ = step_limit_ + 1;
  } else if (is_pct_) {
    const std::uint64_t distance = changes_left_ > 0 ? 1 + schedule_rng_.next_below(pct_length_) : kSpinSteps;
    countdown_ = std::min<std::uint64_t>(distance, kSpinSteps);
  } else {
    countdown_ = 1 + schedule_rng_.next_below(2 * mean_turn_ - 1);
  }
}

inline void Model::preempt() {
  if (is_pct_) {
    if (changes_left_ > 0) --changes_left_;
    threads_[current_].priority = next_low_priority_--;
  }
  const std::size_t from = current_;
  current_ = next_thread();
  begin_turn();
  if (current_ != from) Fiber::swap(*threads_[from].fiber, *threads_[current_].fiber);
}

inline void Model::leave() {
  const std::size_t from = current_;
  is_held_ = false;
  if (live_ == 0) {
    Fiber::swap(*threads_[from].fiber, main_);
    return;
  }
  current_ = next_thread();
  begin_turn();
  Fiber::swap(*threads_[from].fiber, *threads_[current_].fiber);
}

inline void Model::stop_for_ever(const std::source_location& where) {
  is_frozen_ = true;
  frozen_at_ = where;
  if (is_tracing_) note("is frozen");
  --live_;
  leave();
}

}  // namespace zeta::interleave
