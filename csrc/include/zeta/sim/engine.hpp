#pragma once
// One replica's engine on virtual time: continuous batching with chunked prefill, as vLLM's V1 scheduler does it.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <utility>
#include <vector>

#include "zeta/core/time.hpp"
#include "zeta/sim/step_table.hpp"

namespace zeta::sim {

struct EngineRequest {
  std::uint64_t tag = 0;  ///< The caller's name for it; comes back in every report.
  std::uint32_t prompt_tokens = 0;
  std::uint32_t output_tokens = 0;
  std::uint32_t cached_tokens = 0;  ///< Leading prompt tokens whose KV is present: prefill skips them.
  std::int32_t priority = 0;        ///< Lower waits before higher (vLLM's polarity); equals in order of arrival.
};

struct EngineConfig {
  std::uint32_t max_batched_tokens = 2048;  ///< Tokens in one step.
  std::uint32_t max_sequences = 128;        ///< Sequences in one step.
  std::uint32_t block_tokens = 16;          ///< KV is given out in blocks of this many tokens; a power of two up to 64.
  std::uint64_t kv_tokens = 0;              ///< KV capacity.
  std::uint32_t max_waiting = 4096;         ///< Requests that may wait inside the engine.
  /// Admit a request only when its whole prompt has KV room, not just its first piece (vLLM's
  /// scheduler_reserve_full_isl).
  bool reserves_whole_prompt = true;
  /// What a preempted sequence computed stays readable until its blocks are given out again, latest block first
  /// (vLLM's prefix caching); false: preemption loses all of it.
  bool keeps_freed_blocks = true;
  /// Plan step k+2 when step k ends, while k+1 runs (vLLM's asynchronous scheduling); false: plan k+1.
  bool plans_ahead = true;
};

/// Names one enqueued request until its completion, loss or abort.
struct EngineHandle {
  std::uint32_t slot = 0;
  std::uint32_t generation = 0;
};

/// Continuous batching as a state machine: who computes what in each step. A caller (see device.hpp) decides when a
/// step begins and reports its end. Single-threaded. Memory is bounded at construction; after that nothing allocates.
///
/// A step's tokens go to the decoding sequences first (one each), then to the unfinished prefill, then to waiting
/// requests in order of priority and arrival while the token budget, the sequence cap and the KV blocks last. Nothing
/// that runs is preempted for its priority. When the decodes of a step find no block, the latest-admitted sequence
/// loses its KV, goes back to the front of the waiting queue and is later prefilled again, generated tokens included,
/// except for what its freed blocks still hold. A step that preempts admits nobody.
///
/// A step that only decodes costs O(1), whatever the batch: the batch and its context are running sums, the sequences
/// that finish are filed under the number of the step that finishes them, and those that need a block in step s share
/// the phase -s (mod block). Source of the rules: vLLM's V1 scheduler as documented for 0.19.
class Engine {
 public:
  /// Throws std::invalid_argument for a configuration in which no step could run.
  Engine(std::shared_ptr<const StepTable> table, const EngineConfig& config)
      : table_{std::move(table)}, config_{config} {
    check(config);
    block_shift_ = static_cast<unsigned>(std::countr_zero(config.block_tokens));
    kv_blocks_ = config.kv_tokens >> block_shift_;
    free_blocks_ = kv_blocks_;
    sequences_.resize(std::size_t{config.max_waiting} + config.max_sequences);
    finish_buckets_.assign(kFinishRing, kNone);
    reset_slots();
  }

  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;
  Engine(Engine&&) noexcept = default;
  Engine& operator=(Engine&&) noexcept = default;
  ~Engine() = default;

  /// False for a request that this engine can never finish: empty, or larger than the whole KV.
  [[nodiscard]] bool fits(const EngineRequest& request) const noexcept {
    return request.prompt_tokens != 0 && request.output_tokens != 0 &&
           blocks_for(std::uint64_t{request.prompt_tokens} + request.output_tokens) <= kv_blocks_;
  }

  /// std::nullopt when the waiting queue is full or the request does not fit; then nothing has changed. O(1) while
  /// nobody with a higher number waits, else one step for each who does.
  [[nodiscard]] std::optional<EngineHandle> enqueue(const EngineRequest& request, Instant now) noexcept {
    if (!fits(request) || waiting_.count >= config_.max_waiting || free_slot_ == kNone) return std::nullopt;
    const Slot slot = free_slot_;
    Sequence& sequence = sequences_[slot];
    free_slot_ = sequence.next;
    const std::uint32_t generation = sequence.generation;
    sequence = Sequence{};
    sequence.generation = generation;
    sequence.request = request;
    sequence.enqueued_at = now;
    sequence.tokens = request.prompt_tokens;
    sequence.state = State::waiting;
    Slot before = waiting_.tail;
    while (before != kNone && sequences_[before].request.priority > request.priority) {
      before = sequences_[before].previous;
    }
    insert(waiting_, slot, before, before == kNone ? waiting_.head : sequences_[before].next);
    return EngineHandle{slot, generation};
  }

  /// Withdraws a request at any point before its completion. False when the handle is no longer valid.
  bool abort(EngineHandle handle) noexcept {
    if (handle.slot >= sequences_.size()) return false;
    Sequence& sequence = sequences_[handle.slot];
    if (sequence.generation != handle.generation || sequence.state == State::free) return false;
    forget_first_token(handle.slot);
    if (sequence.state == State::waiting) {
      unlink(waiting_, handle.slot);
    } else {
      leave_computation(handle.slot);
      unlink(running_, handle.slot);
    }
    release(handle.slot);
    return true;
  }

  /// Starts the next step if there is one. Between begin_step and end_step the step is in progress.
  [[nodiscard]] std::optional<Duration> begin_step(Instant now) noexcept {
    if (in_step_) return std::nullopt;
    if (plans_.count == 0 && !plan(now)) return std::nullopt;
    current_ = plans_.pop();
    in_step_ = true;
    if (config_.plans_ahead && plans_.count == 0) plan(now);
    cost_ = table_->cost(current_.load);
    if (slow_down_ != 1.0) {
      cost_.total = stretched(cost_.total);
      cost_.device = stretched(cost_.device);
    }
    ++steps_;
    busy_ += cost_.total;
    return cost_.total;
  }

  /// Ends the step in progress: `sink.first_token(tag, scheduled_at, now)` in planning order, then
  /// `sink.completed(tag, now)` in a fixed order of its own. Neither may call back into this engine.
  template <class Sink>
  void end_step(Instant now, Sink&& sink) noexcept {
    if (!in_step_) return;
    in_step_ = false;
    for (Slot slot = current_.first_tokens; slot != kNone;) {
      Sequence& sequence = sequences_[slot];
      slot = std::exchange(sequence.next_first, kNone);
      sequence.awaits_first = false;
      sink.first_token(sequence.request.tag, sequence.scheduled_at, now);
    }
    current_.first_tokens = kNone;
    for (Slot slot = finish_buckets_[bucket_of(current_.number)]; slot != kNone;) {
      const Slot next = sequences_[slot].bucket_next;
      if (sequences_[slot].finish_step == current_.number) {
        const std::uint64_t tag = sequences_[slot].request.tag;
        leave_computation(slot);
        unlink(running_, slot);
        release(slot);
        sink.completed(tag, now);
      }
      slot = next;
    }
    if (config_.plans_ahead && plans_.count == 1) plan(now);
  }

  /// Everything is dropped at once: `sink.lost(tag, now)` for each request inside, then the engine is empty.
  template <class Sink>
  void crash(Instant now, Sink&& sink) noexcept {
    for (const List* list : {&running_, &waiting_}) {
      for (Slot slot = list->head; slot != kNone; slot = sequences_[slot].next) {
        sink.lost(sequences_[slot].request.tag, now);
      }
    }
    reset_slots();
  }

  /// Multiplies the time of the steps that begin from now on; 1 is normal.
  void set_slow_down(double factor) noexcept { slow_down_ = factor > 0.0 ? factor : 1.0; }
  /// While false, waiting requests stay where they are and what runs runs to its end.
  void set_admitting(bool admitting) noexcept { admitting_ = admitting; }

  [[nodiscard]] bool in_step() const noexcept { return in_step_; }
  /// True while a begin_step could find something to do.
  [[nodiscard]] bool has_work() const noexcept { return running_.count != 0 || (admitting_ && waiting_.count != 0); }
  [[nodiscard]] StepCost step_cost() const noexcept { return cost_; }
  [[nodiscard]] const StepLoad& step_load() const noexcept { return current_.load; }
  [[nodiscard]] std::uint32_t running() const noexcept { return running_.count; }
  [[nodiscard]] std::uint32_t waiting() const noexcept { return waiting_.count; }
  [[nodiscard]] std::uint64_t kv_tokens_used() const noexcept { return (kv_blocks_ - free_blocks_) << block_shift_; }
  [[nodiscard]] std::uint64_t kv_tokens_capacity() const noexcept { return kv_blocks_ << block_shift_; }
  [[nodiscard]] std::uint64_t steps() const noexcept { return steps_; }
  [[nodiscard]] std::uint64_t preemptions() const noexcept { return preemptions_; }
  [[nodiscard]] Duration busy() const noexcept { return busy_; }
  /// When the request at the head of the waiting queue was enqueued; kNever when none waits.
  [[nodiscard]] Instant oldest_waiting() const noexcept {
    return waiting_.head == kNone ? kNever : sequences_[waiting_.head].enqueued_at;
  }

  /// `sink.output(tag, tokens)` for each running request: how many of its tokens the ended steps have given. What a
  /// preempted one still got from steps in flight counts once it runs again. O(running).
  template <class Sink>
  void report_outputs(Sink&& sink) const noexcept {
    const std::uint64_t ended = in_step_ ? current_.number - 1 : current_.number;
    for (Slot slot = running_.head; slot != kNone; slot = sequences_[slot].next) {
      const Sequence& sequence = sequences_[slot];
      std::uint64_t tokens = sequence.generated;
      if (sequence.state != State::prefilling && ended >= sequence.prefill_step) {
        tokens += std::min(ended, sequence.finish_step) - sequence.prefill_step + 1;
      }
      sink.output(sequence.request.tag, tokens);
    }
  }

  /// True when the running sums equal what a walk over all sequences gives. For tests.
  [[nodiscard]] bool is_consistent() const noexcept {
    std::uint64_t blocks = 0;
    std::uint64_t batch = 0;
    std::uint64_t context = 0;
    std::uint32_t count = 0;
    for (Slot slot = running_.head; slot != kNone; slot = sequences_[slot].next) {
      const Sequence& sequence = sequences_[slot];
      ++count;
      blocks += held_blocks(sequence);
      if (sequence.state == State::decoding) {
        ++batch;
        context += context_at(sequence, planned_);
      }
    }
    return count == running_.count && blocks == kv_blocks_ - free_blocks_ && batch == decode_batch_ &&
           context == decode_context_;
  }

 private:
  using Slot = std::uint32_t;
  static constexpr Slot kNone = ~Slot{0};
  static constexpr std::size_t kFinishRing = 4096;  ///< Power of two; longer outputs wait out whole laps.

  /// free -> waiting -> prefilling -> decoding -> finishing (last token planned) -> free; preempted: back to waiting.
  enum class State : std::uint8_t { free, waiting, prefilling, decoding, finishing };

  struct Sequence {
    EngineRequest request{};
    Instant enqueued_at{};
    Instant scheduled_at{kNever};
    std::uint64_t tokens = 0;             ///< Tokens to prefill: the prompt, and after a preemption what was generated.
    std::uint64_t prefilled = 0;          ///< Of these, planned or done.
    std::uint64_t prefill_step = 0;       ///< The step that ended the prefill and gave a token.
    std::uint64_t finish_step = 0;        ///< The step that gives the last token.
    std::uint64_t freed_full_blocks = 0;  ///< Of the last preemption.
    std::uint64_t first_lost_at = 0;      ///< taken_blocks_ from which on they are given out again.
    Slot next = kNone;
    Slot previous = kNone;
    Slot bucket_next = kNone;
    Slot bucket_previous = kNone;
    Slot next_first = kNone;
    std::uint32_t generation = 0;
    std::uint32_t generated = 0;  ///< Tokens generated before the present prefill.
    State state = State::free;
    bool awaits_first = false;  ///< In the first-token list of a step that is planned or in progress.
    bool has_first = false;
  };

  struct List {
    Slot head = kNone;
    Slot tail = kNone;
    std::uint32_t count = 0;
  };

  struct Plan {
    StepLoad load{};
    std::uint64_t number = 0;
    Slot first_tokens = kNone;  ///< Sequences whose first token this step gives, in planning order.
    Slot last_first_token = kNone;
  };

  /// Steps planned and not begun, oldest first; at most two.
  struct PlanQueue {
    std::array<Plan, 2> plans{};
    std::uint32_t count = 0;
    Plan pop() noexcept {
      const Plan first = plans[0];
      plans[0] = plans[1];
      --count;
      return first;
    }
  };

  static void check(const EngineConfig& config) {
    if (config.max_sequences == 0 || config.max_batched_tokens < config.max_sequences) {
      throw std::invalid_argument("max_batched_tokens must be at least max_sequences, and max_sequences at least 1");
    }
    if (!std::has_single_bit(config.block_tokens) || config.block_tokens > kMaxBlockTokens) {
      throw std::invalid_argument("block_tokens must be a power of two up to 64");
    }
    if (config.kv_tokens < config.block_tokens) {
      throw std::invalid_argument("kv_tokens must hold at least one block");
    }
  }

  // -- planning ------------------------------------------------------------------------------------------------------

  /// Plans the next step into plans_. False when there is nothing to compute.
  bool plan(Instant now) noexcept {
    const std::uint64_t number = planned_ + 1;
    retire_planned_out();
    const std::uint64_t preempted_before = preemptions_;
    while (blocks_due(number) > free_blocks_) preempt_latest();
    if (decode_batch_ == 0 && !has_prefill_work()) return false;

    Plan step;
    step.number = planned_ = number;
    take_blocks(blocks_due(number));
    decode_context_ += decode_batch_;
    step.load.decode_batch = decode_batch_;
    step.load.decode_context_tokens = decode_context_;
    step.load.sequences = decode_batch_;
    std::uint64_t budget = config_.max_batched_tokens - decode_batch_;
    budget -= continue_prefill(step, budget);
    if (preemptions_ == preempted_before) admit(step, budget, now);
    if (step.load.sequences == 0) {
      // Nothing found room: the number is unused, and no decode has advanced because there is none.
      --planned_;
      return false;
    }
    plans_.plans[plans_.count++] = step;
    return true;
  }

  /// Those whose last token was planned in the previous step decode no more; they keep their KV until it has run.
  void retire_planned_out() noexcept {
    for (Slot slot = finish_buckets_[bucket_of(planned_)]; slot != kNone; slot = sequences_[slot].bucket_next) {
      Sequence& sequence = sequences_[slot];
      if (sequence.finish_step == planned_ && sequence.state == State::decoding) {
        stop_decoding(sequence);
        sequence.state = State::finishing;
      }
    }
  }

  [[nodiscard]] bool has_prefill_work() const noexcept {
    return (running_.tail != kNone && sequences_[running_.tail].state == State::prefilling) ||
           (admitting_ && waiting_.count != 0);
  }

  /// Tokens given to the prefill that an earlier step began. Only the latest-admitted sequence can be unfinished:
  /// a piece is cut short only by the end of the budget, and then nobody is admitted behind it.
  std::uint64_t continue_prefill(Plan& step, std::uint64_t budget) noexcept {
    const Slot slot = running_.tail;
    if (slot == kNone || sequences_[slot].state != State::prefilling || budget == 0) return 0;
    Sequence& sequence = sequences_[slot];
    const std::uint64_t tokens = std::min(sequence.tokens - sequence.prefilled, budget);
    const std::uint64_t blocks = blocks_for(sequence.prefilled + tokens) - held_blocks(sequence);
    if (blocks > free_blocks_) {
      preempt_latest();
      return 0;
    }
    take_blocks(blocks);
    add_piece(step, slot, tokens);
    return tokens;
  }

  void admit(Plan& step, std::uint64_t budget, Instant now) noexcept {
    if (!admitting_) return;
    while (budget != 0 && waiting_.head != kNone && running_.count < config_.max_sequences) {
      const Slot slot = waiting_.head;
      Sequence& sequence = sequences_[slot];
      const std::uint64_t cached = present_tokens(sequence);
      const std::uint64_t tokens = std::min(sequence.tokens - cached, budget);
      const std::uint64_t blocks = blocks_for(cached + tokens);
      if ((config_.reserves_whole_prompt ? blocks_for(sequence.tokens) : blocks) > free_blocks_) return;
      const std::uint64_t reused = std::min(surviving_blocks(sequence), cached >> block_shift_);
      take_blocks(blocks, reused);
      unlink(waiting_, slot);
      push_back(running_, slot);
      sequence.state = State::prefilling;
      sequence.prefilled = cached;
      if (sequence.scheduled_at == kNever) sequence.scheduled_at = now;
      add_piece(step, slot, tokens);
      budget -= tokens;
    }
  }

  /// The blocks have been taken. Ends the prefill when this piece is its last.
  void add_piece(Plan& step, Slot slot, std::uint64_t tokens) noexcept {
    Sequence& sequence = sequences_[slot];
    step.load.prefill_tokens += tokens;
    step.load.prefill_attention_ns += table_->prefill_attention_ns(tokens, sequence.prefilled);
    ++step.load.sequences;
    sequence.prefilled += tokens;
    if (sequence.prefilled != sequence.tokens) return;
    sequence.prefill_step = step.number;
    sequence.finish_step = step.number + (sequence.request.output_tokens - sequence.generated) - 1;
    sequence.state = State::decoding;
    file_finish(slot);
    ++decode_batch_;
    decode_context_ += sequence.tokens;
    ++due_[phase_of(sequence)];
    if (!sequence.has_first) {
      sequence.has_first = true;
      sequence.awaits_first = true;
      if (step.last_first_token == kNone) {
        step.first_tokens = slot;
      } else {
        sequences_[step.last_first_token].next_first = slot;
      }
      step.last_first_token = slot;
    }
  }

  /// The latest-admitted sequence that is not about to finish loses its KV and waits at the front.
  void preempt_latest() noexcept {
    Slot slot = running_.tail;
    while (slot != kNone && sequences_[slot].state == State::finishing) slot = sequences_[slot].previous;
    if (slot == kNone) return;
    Sequence& sequence = sequences_[slot];
    const bool was_decoding = sequence.state == State::decoding;
    // Tokens planned so far, the one of prefill_step included; those in flight still come out.
    if (was_decoding) sequence.generated += static_cast<std::uint32_t>(planned_ - sequence.prefill_step) + 1;
    const std::uint64_t computed = was_decoding ? context_at(sequence, planned_) : sequence.prefilled;
    sequence.freed_full_blocks = computed >> block_shift_;
    // The freed blocks queue up behind those that are free already, the last block of the sequence first.
    sequence.first_lost_at = taken_blocks_ + free_blocks_ + (held_blocks(sequence) - sequence.freed_full_blocks);
    leave_computation(slot);
    sequence.tokens = std::uint64_t{sequence.request.prompt_tokens} + sequence.generated;
    sequence.prefilled = 0;
    sequence.state = State::waiting;
    unlink(running_, slot);
    push_front(waiting_, slot);
    ++preemptions_;
  }

  /// Takes a running sequence out of the sums and gives its blocks back. Its links in running_ stay.
  void leave_computation(Slot slot) noexcept {
    Sequence& sequence = sequences_[slot];
    free_blocks_ += held_blocks(sequence);
    if (sequence.state == State::decoding) stop_decoding(sequence);
    if (sequence.state == State::decoding || sequence.state == State::finishing) unfile_finish(slot);
  }

  void stop_decoding(const Sequence& sequence) noexcept {
    --decode_batch_;
    decode_context_ -= context_at(sequence, planned_);
    --due_[phase_of(sequence)];
  }

  // -- KV blocks -----------------------------------------------------------------------------------------------------

  [[nodiscard]] std::uint64_t blocks_for(std::uint64_t tokens) const noexcept {
    return (tokens + config_.block_tokens - 1) >> block_shift_;
  }
  /// Takes blocks, of which `reused` keep what they hold and the others come from the head of the free queue.
  void take_blocks(std::uint64_t blocks, std::uint64_t reused = 0) noexcept {
    free_blocks_ -= blocks;
    taken_blocks_ += blocks - reused;
  }
  /// Leading blocks of a preempted sequence that nobody has been given since.
  [[nodiscard]] std::uint64_t surviving_blocks(const Sequence& sequence) const noexcept {
    if (!config_.keeps_freed_blocks) return 0;
    const std::uint64_t lost = taken_blocks_ > sequence.first_lost_at ? taken_blocks_ - sequence.first_lost_at : 0;
    return sequence.freed_full_blocks > lost ? sequence.freed_full_blocks - lost : 0;
  }
  /// Leading tokens that a prefill may skip. Whole blocks only; the last token is always computed, for the next one.
  [[nodiscard]] std::uint64_t present_tokens(const Sequence& sequence) const noexcept {
    const std::uint64_t given = std::min<std::uint64_t>(sequence.request.cached_tokens, sequence.request.prompt_tokens);
    const std::uint64_t blocks = std::max(given >> block_shift_, surviving_blocks(sequence));
    return std::min(blocks, (sequence.tokens - 1) >> block_shift_) << block_shift_;
  }
  /// Tokens whose KV a decoding sequence has once step `number` has run.
  static std::uint64_t context_at(const Sequence& sequence, std::uint64_t number) noexcept {
    return sequence.tokens + (number - sequence.prefill_step);
  }
  /// Blocks held by a running sequence after everything that is planned.
  [[nodiscard]] std::uint64_t held_blocks(const Sequence& sequence) const noexcept {
    if (sequence.state == State::prefilling) return blocks_for(sequence.prefilled);
    return blocks_for(context_at(sequence, std::min(planned_, sequence.finish_step)));
  }
  /// A sequence's first token of a new block falls into step s exactly when its phase is -s (mod block_tokens).
  [[nodiscard]] std::size_t phase_of(const Sequence& sequence) const noexcept {
    return static_cast<std::size_t>((sequence.tokens - sequence.prefill_step - 1) & (config_.block_tokens - 1));
  }
  [[nodiscard]] std::uint64_t blocks_due(std::uint64_t number) const noexcept {
    return due_[static_cast<std::size_t>((0 - number) & (config_.block_tokens - 1))];
  }

  // -- filing --------------------------------------------------------------------------------------------------------

  static std::size_t bucket_of(std::uint64_t step) noexcept {
    return static_cast<std::size_t>(step & (kFinishRing - 1));
  }
  void file_finish(Slot slot) noexcept {
    Sequence& sequence = sequences_[slot];
    Slot& head = finish_buckets_[bucket_of(sequence.finish_step)];
    sequence.bucket_previous = kNone;
    sequence.bucket_next = head;
    if (head != kNone) sequences_[head].bucket_previous = slot;
    head = slot;
  }
  void unfile_finish(Slot slot) noexcept {
    Sequence& sequence = sequences_[slot];
    if (sequence.bucket_previous != kNone) {
      sequences_[sequence.bucket_previous].bucket_next = sequence.bucket_next;
    } else {
      finish_buckets_[bucket_of(sequence.finish_step)] = sequence.bucket_next;
    }
    if (sequence.bucket_next != kNone) sequences_[sequence.bucket_next].bucket_previous = sequence.bucket_previous;
    sequence.bucket_next = sequence.bucket_previous = kNone;
  }

  void forget_first_token(Slot slot) noexcept {
    if (!sequences_[slot].awaits_first) return;
    forget_in(current_, slot);
    for (std::uint32_t i = 0; i < plans_.count; ++i) forget_in(plans_.plans[i], slot);
    sequences_[slot].awaits_first = false;
  }
  void forget_in(Plan& step, Slot slot) noexcept {
    Slot before = kNone;
    for (Slot at = step.first_tokens; at != kNone; before = at, at = sequences_[at].next_first) {
      if (at != slot) continue;
      const Slot after = sequences_[at].next_first;
      if (before == kNone) {
        step.first_tokens = after;
      } else {
        sequences_[before].next_first = after;
      }
      if (step.last_first_token == slot) step.last_first_token = before;
      sequences_[at].next_first = kNone;
      return;
    }
  }

  // -- slots and lists -----------------------------------------------------------------------------------------------

  void reset_slots() noexcept {
    for (std::size_t i = 0; i < sequences_.size(); ++i) {
      const std::uint32_t generation = sequences_[i].generation + 1;
      sequences_[i] = Sequence{};
      sequences_[i].generation = generation;
      sequences_[i].next = i + 1 < sequences_.size() ? static_cast<Slot>(i + 1) : kNone;
    }
    free_slot_ = 0;
    running_ = waiting_ = List{};
    plans_ = PlanQueue{};
    current_ = Plan{};
    in_step_ = false;
    free_blocks_ = kv_blocks_;
    decode_batch_ = decode_context_ = 0;
    due_.fill(0);
    std::fill(finish_buckets_.begin(), finish_buckets_.end(), kNone);
  }

  void release(Slot slot) noexcept {
    Sequence& sequence = sequences_[slot];
    sequence.state = State::free;
    ++sequence.generation;
    sequence.next = free_slot_;
    free_slot_ = slot;
  }

  void push_back(List& list, Slot slot) noexcept { insert(list, slot, list.tail, kNone); }
  void push_front(List& list, Slot slot) noexcept { insert(list, slot, kNone, list.head); }
  void insert(List& list, Slot slot, Slot before, Slot after) noexcept {
    sequences_[slot].previous = before;
    sequences_[slot].next = after;
    (before == kNone ? list.head : sequences_[before].next) = slot;
    (after == kNone ? list.tail : sequences_[after].previous) = slot;
    ++list.count;
  }
  void unlink(List& list, Slot slot) noexcept {
    const Slot before = sequences_[slot].previous;
    const Slot after = sequences_[slot].next;
    (before == kNone ? list.head : sequences_[before].next) = after;
    (after == kNone ? list.tail : sequences_[after].previous) = before;
    --list.count;
  }

  [[nodiscard]] Duration stretched(Duration span) const noexcept {
    return Duration{static_cast<std::int64_t>(static_cast<double>(span.count()) * slow_down_ + 0.5)};
  }

  static constexpr std::size_t kMaxBlockTokens = 64;

  std::shared_ptr<const StepTable> table_;
  EngineConfig config_;
  unsigned block_shift_ = 4;
  std::uint64_t kv_blocks_ = 0;
  std::uint64_t free_blocks_ = 0;
  std::uint64_t taken_blocks_ = 0;  ///< Ever taken from the head of the free queue.

  std::vector<Sequence> sequences_;
  std::vector<Slot> finish_buckets_;
  Slot free_slot_ = kNone;
  List waiting_;
  List running_;

  // Running sums over the decoding sequences, after everything that is planned.
  std::uint64_t decode_batch_ = 0;
  std::uint64_t decode_context_ = 0;
  std::array<std::uint64_t, kMaxBlockTokens> due_{};  ///< Decoding sequences by phase.

  std::uint64_t planned_ = 0;  ///< Number of the latest planned step.
  PlanQueue plans_;
  Plan current_;
  StepCost cost_;
  bool in_step_ = false;
  bool admitting_ = true;
  double slow_down_ = 1.0;

  std::uint64_t steps_ = 0;
  std::uint64_t preemptions_ = 0;
  Duration busy_{};
};

}  // namespace zeta::sim
