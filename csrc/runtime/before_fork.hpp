#pragma once

#include <pthread.h>
#include <sched.h>

#include <new>

namespace zeta::runtime {

/// Has `prepare` run in the forking thread before each fork from now on, for the life of the process. It runs inside
/// fork(), after everything that Python's os.register_at_fork calls, so nothing gets between it and the fork but what
/// other threads do.
inline void before_fork(void (*prepare)()) {
  if (pthread_atfork(prepare, nullptr, nullptr) != 0) throw std::bad_alloc{};  // its only error
}

/// For a thread that waits for another, which may need the core.
inline void let_others_run() noexcept { (void)sched_yield(); }

}  // namespace zeta::runtime
