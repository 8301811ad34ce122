#pragma once
// Subjects that are built once for all schedules.

#include <memory>

#include "interleave/model.hpp"

namespace zeta::interleave {

/// A subject that costs more to build than to run: built once, and as new at the beginning of each schedule. One per
/// scenario, static; `prepare` runs once, on the subject just built, and is part of what each schedule begins with.
template <class Subject>
class Reused {
 public:
  template <class Prepare, class... Arguments>
  Subject& fresh(Model& model, Prepare prepare, Arguments... arguments) {
    if (subject_ == nullptr) {
      model.begin_building();
      subject_ = std::make_unique<Subject>(arguments...);
      prepare(*subject_);
      model.end_building();
    }
    return *subject_;
  }

 private:
  std::unique_ptr<Subject> subject_;
};

}  // namespace zeta::interleave
