// A library with ONNX Runtime's entry point and the functions that zeta calls, in their places. The "model" is a text
// that says what each run does; see the cases of run(). Built for the unit tests only.

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <string>
#include <thread>

namespace {

using Status = const char*;  // nullptr is good, as in ONNX Runtime

constexpr std::size_t kWidth = 2;

struct Value {
  float* data;
  std::size_t rows;
};
struct Session {
  std::string model;
};
struct Binding {
  Value* input = nullptr;
  Value* output = nullptr;
};
struct RunOptions {
  std::atomic<bool> is_terminated{false};
};

std::atomic<int> alive{0};

template <class T>
T* made(T* object) {
  alive.fetch_add(1);
  return object;
}

template <class T>
void release(void* object) {
  if (object != nullptr) alive.fetch_sub(1);
  delete static_cast<T*>(object);
}

Status nothing() { return nullptr; }

Status make_environment(int, const char*, void** out) {
  static int environment;
  *out = &environment;
  return nullptr;
}
Status make_cpu(int, int, void** out) { return make_environment(0, "", out); }
Status make_names(void** out) { return make_environment(0, "", out); }
Status free_name(void*, void*) { return nullptr; }

Status make_options(void** out) {
  *out = made(new int{0});
  return nullptr;
}
Status make_session(const void*, const void* model, std::size_t size, const void*, void** out) {
  const std::string text{static_cast<const char*>(model), size};
  if (text == "refused") return "this is no model";
  *out = made(new Session{text});
  return nullptr;
}
Status count(const void* session, std::size_t* out) {
  *out = static_cast<const Session*>(session)->model == "two inputs" ? 2 : 1;
  return nullptr;
}
Status count_one(const void*, std::size_t* out) {
  *out = 1;
  return nullptr;
}
char input_name[] = "features";
char output_name[] = "quantiles";
Status name_input(const void* session, std::size_t, void*, char** out) {
  *out = static_cast<const Session*>(session)->model == "other name" ? output_name : input_name;
  return nullptr;
}
Status name_output(const void*, std::size_t, void*, char** out) {
  *out = output_name;
  return nullptr;
}
Status type_of(const void* session, std::size_t, void** out) {
  *out = made(new Session{*static_cast<const Session*>(session)});
  return nullptr;
}
Status tensor_of(const void* type, const void** out) {
  *out = static_cast<const Session*>(type)->model == "no tensor" ? nullptr : type;
  return nullptr;
}
Status element_of(const void* type, int* out) {
  *out = static_cast<const Session*>(type)->model == "doubles" ? 11 : 1;
  return nullptr;
}
Status rank_of(const void* type, std::size_t* out) {
  *out = static_cast<const Session*>(type)->model == "vector" ? 1 : 2;
  return nullptr;
}
Status shape_of(const void* type, std::int64_t* out, std::size_t) {
  out[0] = static_cast<const Session*>(type)->model == "fixed rows" ? 4 : -1;
  out[1] = static_cast<const Session*>(type)->model == "wide" ? 3 : kWidth;
  return nullptr;
}
Status make_run_options(void** out) {
  *out = made(new RunOptions);
  return nullptr;
}
Status set_terminate(void* options) {
  static_cast<RunOptions*>(options)->is_terminated.store(true);
  return nullptr;
}
Status unset_terminate(void* options) {
  static_cast<RunOptions*>(options)->is_terminated.store(false);
  return nullptr;
}
Status make_tensor(const void*, void* data, std::size_t, const std::int64_t* shape, std::size_t, int, void** out) {
  *out = made(new Value{static_cast<float*>(data), static_cast<std::size_t>(shape[0])});
  return nullptr;
}
Status make_binding(void*, void** out) {
  *out = made(new Binding);
  return nullptr;
}
Status bind_input(void* binding, const char*, const void* value) {
  static_cast<Binding*>(binding)->input = static_cast<Value*>(const_cast<void*>(value));
  return nullptr;
}
Status bind_output(void* binding, const char*, const void* value) {
  static_cast<Binding*>(binding)->output = static_cast<Value*>(const_cast<void*>(value));
  return nullptr;
}

/// Doubles its input, unless the model says otherwise, or a feature is -1.
Status run(void* session, const void* options, const void* binding) {
  const std::string& model = static_cast<Session*>(session)->model;
  const auto* bound = static_cast<const Binding*>(binding);
  const auto& is_terminated = static_cast<const RunOptions*>(options)->is_terminated;
  const std::size_t numbers = bound->input->rows * kWidth;
  const bool is_asked = bound->input->data[0] == -1.0F;
  if (model == "fails" && is_asked) return "it failed";
  if (model == "hangs" && is_asked) {
    while (!is_terminated.load()) std::this_thread::yield();
    return "terminated";
  }
  if (model == "slow" && is_asked) std::this_thread::sleep_for(std::chrono::milliseconds{20});
  if (is_terminated.load()) return "terminated before it began";
  for (std::size_t i = 0; i < numbers; ++i) bound->output->data[i] = 2.0F * bound->input->data[i];
  return nullptr;
}

const char* message_of(void* status) { return static_cast<const char*>(status); }
void forget(void*) {}

template <class Function>
void* as_entry(Function* function) {
  return reinterpret_cast<void*>(function);
}

std::array<void*, 300> table() {
  std::array<void*, 300> calls{};
  calls.fill(as_entry(&nothing));
  calls[2] = as_entry(&message_of);
  calls[3] = as_entry(&make_environment);
  calls[8] = as_entry(&make_session);
  calls[10] = as_entry(&make_options);
  calls[30] = as_entry(&count);
  calls[31] = as_entry(&count_one);
  calls[33] = calls[34] = as_entry(&type_of);
  calls[36] = as_entry(&name_input);
  calls[37] = as_entry(&name_output);
  calls[39] = as_entry(&make_run_options);
  calls[46] = as_entry(&set_terminate);
  calls[47] = as_entry(&unset_terminate);
  calls[49] = as_entry(&make_tensor);
  calls[55] = as_entry(&tensor_of);
  calls[60] = as_entry(&element_of);
  calls[61] = as_entry(&rank_of);
  calls[62] = as_entry(&shape_of);
  calls[69] = as_entry(&make_cpu);
  calls[76] = as_entry(&free_name);
  calls[78] = as_entry(&make_names);
  calls[93] = as_entry(&forget);
  calls[95] = as_entry(&release<Session>);
  calls[96] = as_entry(&release<Value>);
  calls[97] = as_entry(&release<RunOptions>);
  calls[98] = as_entry(&release<Session>);
  calls[100] = as_entry(&release<int>);
  calls[133] = as_entry(&run);
  calls[134] = as_entry(&make_binding);
  calls[135] = as_entry(&release<Binding>);
  calls[136] = as_entry(&bind_input);
  calls[137] = as_entry(&bind_output);
  return calls;
}

const void* const* get_api(std::uint32_t version) {
  static const std::array<void*, 300> calls = table();
  return version == 20 ? calls.data() : nullptr;
}
const char* get_version() { return "1.99.0"; }

struct Base {
  const void* const* (*get_api)(std::uint32_t);
  const char* (*get_version)();
};

}  // namespace

extern "C" {
[[gnu::visibility("default")]] const Base* OrtGetApiBase() {
  static const Base base{&get_api, &get_version};
  return &base;
}
/// Objects made and not released.
[[gnu::visibility("default")]] int fake_onnxruntime_alive() { return alive.load(); }
}
