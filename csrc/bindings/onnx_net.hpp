#pragma once

#include <memory>
#include <utility>

#include "runtime/onnx_session.hpp"

namespace zeta::bindings {

/// What zeta._core.OnnxNet holds: a session, until a native loop takes it. Guarded by the GIL.
struct OnnxNet {
  std::unique_ptr<runtime::OnnxSession> session;

  /// For the loop's binding: the session, which Python can use no longer; nullptr if it was taken before.
  [[nodiscard]] std::unique_ptr<runtime::OnnxSession> take() noexcept { return std::move(session); }
};

}  // namespace zeta::bindings
