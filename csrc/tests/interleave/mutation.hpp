#pragma once
// Every memory order of a subject, weakened one at a time: a suite that does not notice tests nothing about that order.

#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <regex>
#include <string>
#include <string_view>
#include <vector>

#include "interleave/explore.hpp"

namespace zeta::interleave {

/// A mutant that no schedule can tell from the original, and why. The key is the one that the table prints: function,
/// operation, edges of docs/memory_model.md, what is dropped.
struct Argued {
  std::string key;
  std::string reason;
};

struct Suite {
  std::vector<std::string> files;  ///< the subject's headers, as they end: "sync/index_stack.hpp"
  std::vector<NamedScenario> scenarios;
  std::vector<Argued> argued;
  /// While a subject's survivors are still to be killed or argued, they are counted and printed, and fail nothing.
  bool are_survivors_settled = true;
};

struct Mutant {
  Weakening weakening;
  Order from;
  std::string key;
  /// C++ has a name for what is left. Without one (a seq_cst that does not acquire) the mutant tells whether that side
  /// of the order is tested; its survival condemns nothing.
  bool is_expressible;
};

enum class Fate : std::uint8_t { kKilled, kSurvived, kNotRun };

struct Verdict {
  Mutant mutant;
  Fate fate = Fate::kNotRun;
  std::string detail;
};

namespace detail {

inline std::string source_path(const std::string& file) {
#ifdef ZETA_SOURCE_DIR
  const std::size_t at = file.rfind("csrc/");
  if (at != std::string::npos) return std::string(ZETA_SOURCE_DIR) + "/" + file.substr(at);
#endif
  return file;
}

inline std::string code_of(const std::string& line) {
  std::string code = line.substr(0, line.find("//"));
  while (!code.empty() && (code.back() == ' ' || code.back() == '\t')) code.pop_back();
  return code;
}

/// The edges named beside an operation, by the rule of tools/check_memory_edges.py: on its statement's lines and on the
/// comment lines right above.
inline std::string edges_at(const std::string& file, std::size_t line) {
  static std::map<std::string, std::vector<std::string>> sources;
  std::vector<std::string>& lines = sources[file];
  if (lines.empty()) {
    std::ifstream in(source_path(file));
    for (std::string text; std::getline(in, text);) lines.push_back(text);
  }
  if (line > lines.size() || line == 0) return "?";
  std::size_t first = line - 1;
  const auto is_begun_above = [&] {
    const std::string above = code_of(lines[first - 1]);
    return above.find_first_not_of(" \t") != std::string::npos &&
           std::string_view(";{}:").find(above.back()) == std::string_view::npos;
  };
  while (first > 0 && is_begun_above()) --first;
  const auto is_comment = [&](const std::string& text) {
    return !text.empty() && code_of(text).find_first_not_of(" \t") == std::string::npos;
  };
  while (first > 0 && is_comment(lines[first - 1])) --first;
  std::vector<std::string> edges;
  static const std::regex edge(R"(\bE\d+\b)");
  for (std::size_t i = first; i < line; ++i) {
    const std::size_t comment = lines[i].find("//");
    if (comment == std::string::npos) continue;
    for (std::sregex_iterator it(lines[i].begin() + static_cast<std::ptrdiff_t>(comment), lines[i].end(), edge), end;
         it != end; ++it) {
      if (std::find(edges.begin(), edges.end(), it->str()) == edges.end()) edges.push_back(it->str());
    }
  }
  std::string joined;
  for (const std::string& name : edges) joined += (joined.empty() ? "" : ",") + name;
  return joined.empty() ? "-" : joined;
}

/// "IndexStack::push" of g++'s full signature.
inline std::string function_of(const std::source_location& where) {
  std::string plain;
  int depth = 0;
  for (const char c : std::string_view(where.function_name())) {
    if (c == '<') ++depth;
    if (depth == 0 && (c == '(' || c == '[')) break;
    if (depth == 0) plain += c;
    if (c == '>') --depth;
  }
  plain = plain.substr(plain.find_last_of(" *&") + 1);
  const std::size_t last = plain.rfind("::");
  if (last == std::string::npos || last == 0) return plain;
  const std::size_t before = plain.rfind("::", last - 1);
  return before == std::string::npos ? plain : plain.substr(before + 2);
}

inline bool ends_with_any(std::string_view name, const std::vector<std::string>& ends) {
  return std::any_of(ends.begin(), ends.end(), [&](const std::string& end) { return name.ends_with(end); });
}

}  // namespace detail

/// Finds the ordered operations that the scenarios reach, and what can be dropped from each.
inline std::vector<Mutant> mutants_of(const Suite& suite) {
  Model model;
  model.collect_sites(true);
  for (const NamedScenario& named : suite.scenarios) {
    for (std::uint64_t seed = 1; seed <= 3'000; ++seed) {
      (void)run_seed(model, named.scenario, seed, Model::Memory::kBySeed);
    }
  }
  std::vector<Site> sites = model.sites();
  std::sort(sites.begin(), sites.end(), [](const Site& a, const Site& b) {
    const int files = std::strcmp(a.where.file_name(), b.where.file_name());
    if (files != 0) return files < 0;
    if (a.where.line() != b.where.line()) return a.where.line() < b.where.line();
    if (a.where.column() != b.where.column()) return a.where.column() < b.where.column();
    return a.operation < b.operation;
  });
  std::vector<Mutant> mutants;
  std::map<std::string, int> uses;
  for (const Site& site : sites) {
    if (!detail::ends_with_any(site.where.file_name(), suite.files)) continue;
    const std::string edges = detail::edges_at(site.where.file_name(), site.where.line());
    for (const Order dropped : {Order{kSeqCst}, Order{kRelease}, Order{kAcquire}}) {
      if ((site.order & dropped) == 0) continue;
      std::string key =
          detail::function_of(site.where) + " " + name_of(site.operation) + " " + edges + " -" + name_of(dropped);
      const int use = ++uses[key];
      if (use > 1) key += " #" + std::to_string(use);
      mutants.push_back({.weakening = {site.where, site.operation, dropped},
                         .from = site.order,
                         .key = key,
                         .is_expressible = dropped == kSeqCst || (site.order & kSeqCst) == 0});
    }
  }
  return mutants;
}

/// Runs the suite on one mutant in a child process, since a mutant may well crash.
inline Verdict judge(const Suite& suite, const Mutant& mutant, std::uint64_t schedules_each) {
  Verdict verdict;
  verdict.mutant = mutant;
  std::array<int, 2> ends{};
  if (pipe(ends.data()) != 0) std::abort();
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    for (const int each : {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL, SIGTERM}) std::signal(each, SIG_DFL);
    alarm(14'400);  // of a night; a mutant that never ends is killed by it
    Model model;
    model.weaken(mutant.weakening);
    std::uint64_t done = 0;
    std::string detail;
    // Short rounds over all scenarios first: most mutants die in one of them.
    for (std::uint64_t round = 200; detail.empty() && done < schedules_each; round *= 4) {
      const std::uint64_t until = std::min(schedules_each, done + round);
      for (const NamedScenario& named : suite.scenarios) {
        for (std::uint64_t i = done; detail.empty() && i < until; ++i) {
          const std::string what = run_seed(model, named.scenario, first_seed() + i, Model::Memory::kWeak);
          if (!what.empty()) detail = named.name + ", schedule " + std::to_string(i + 1) + ": " + what;
        }
        if (!detail.empty()) break;
      }
      done = until;
    }
    const char* text = detail.data();
    for (std::size_t left = std::min<std::size_t>(detail.size(), 300); left > 0;) {
      const ssize_t written = write(ends[1], text, left);
      if (written <= 0) break;
      text += written;
      left -= static_cast<std::size_t>(written);
    }
    _exit(detail.empty() ? 0 : 1);
  }
  close(ends[1]);
  std::array<char, 256> buffer{};
  for (ssize_t got = 0; (got = read(ends[0], buffer.data(), buffer.size())) > 0;) {
    verdict.detail.append(buffer.data(), static_cast<std::size_t>(got));
  }
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  const bool has_crashed = !WIFEXITED(status);
  if (has_crashed) verdict.detail = "crash: signal " + std::to_string(WTERMSIG(status));
  verdict.fate = has_crashed || WEXITSTATUS(status) != 0 ? Fate::kKilled : Fate::kSurvived;
  return verdict;
}

/// How many mutants to run: ZETA_MODEL_MUTANTS=all is the nightly's, otherwise a tenth that the seed chooses.
inline bool runs_all_mutants() {
  const char* const asked = std::getenv("ZETA_MODEL_MUTANTS");
  return asked != nullptr && std::string_view(asked) == "all";
}

/// Judges the suite's mutants, prints the table, and fails the test case for each survivor that nobody has argued and
/// for each argument that a schedule refutes.
inline void expect_killed(const Suite& suite, std::uint64_t schedules_each, bool is_small = false) {
  std::vector<Mutant> mutants = mutants_of(suite);
  CHECK_MESSAGE(!mutants.empty(), "no ordered operation was reached");
  const bool runs_all = runs_all_mutants() || is_small;
  if (!runs_all) {
    std::erase_if(mutants, [](const Mutant& mutant) { return !mutant.is_expressible; });
    Rng rng{first_seed()};
    for (std::size_t i = mutants.size(); i > 1; --i) std::swap(mutants[i - 1], mutants[rng.next_below(i)]);
    mutants.resize((mutants.size() + 9) / 10);
  }
  if (!mutants.empty()) {
    Mutant original = mutants.front();
    original.weakening.dropped = kRelaxed;
    const Verdict verdict = judge(suite, original, schedules(schedules_each));
    if (verdict.fate == Fate::kKilled) {
      FAIL_CHECK("the original fails, so nothing can be told of its mutants: " << verdict.detail
                                                                               << "\n  replay with ZETA_MODEL_WEAK=1");
      return;
    }
  }
  std::array<int, 2> killed{};
  std::array<int, 2> survived{};
  int argued = 0;
  for (const Mutant& mutant : mutants) {
    const auto argument = std::find_if(suite.argued.begin(), suite.argued.end(),
                                       [&](const Argued& candidate) { return candidate.key == mutant.key; });
    const Verdict verdict = judge(suite, mutant, schedules(schedules_each));
    const bool is_killed = verdict.fate == Fate::kKilled;
    const bool is_argued = argument != suite.argued.end();
    if (is_killed) {
      ++killed[mutant.is_expressible ? 0 : 1];
    } else if (is_argued) {
      ++argued;
    } else {
      ++survived[mutant.is_expressible ? 0 : 1];
    }
    const char* const fate = is_killed ? "killed  " : is_argued ? "argued  " : "SURVIVED";
    std::printf("  %s %s%s  (line %u)%s%s\n", fate, mutant.key.c_str(), mutant.is_expressible ? "" : " [one side]",
                mutant.weakening.where.line(), is_killed || is_argued ? "  " : "",
                is_killed   ? verdict.detail.c_str()
                : is_argued ? argument->reason.c_str()
                            : "");
    std::fflush(stdout);
    if (is_killed && is_argued) FAIL_CHECK(mutant.key << ": argued to be equivalent, but " << verdict.detail);
    if (!is_killed && !is_argued && mutant.is_expressible && suite.are_survivors_settled)
      FAIL_CHECK(mutant.key << ": no scenario notices");
  }
  std::printf("  %zu mutants: %d killed, %d argued, %d survived; one side of a seq_cst: %d killed, %d survived\n",
              mutants.size(), killed[0], argued, survived[0], killed[1], survived[1]);
  if (!runs_all) return;
  for (const Argued& candidate : suite.argued) {
    const bool is_found =
        std::any_of(mutants.begin(), mutants.end(), [&](const Mutant& mutant) { return mutant.key == candidate.key; });
    CHECK_MESSAGE(is_found, "argued, but no such mutant: " << candidate.key);
  }
}

}  // namespace zeta::interleave
