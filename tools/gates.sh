#!/usr/bin/env bash
# Every static check, all run even when one fails; ends with the names of those that failed. `make gates` runs it.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2
export PYTHONPATH=python
failed=()

gate() {  # gate NAME COMMAND...
  local name=$1 from=$SECONDS output
  shift
  if output=$("$@" 2>&1); then
    printf '  ok    %s (%d s)\n' "$name" $((SECONDS - from))
  else
    printf '  FAIL  %s\n%s\n' "$name" "$output"
    failed+=("$name")
  fi
}

clang_format() { git ls-files -z --cached --others --exclude-standard -- '*.hpp' '*.cpp' | xargs -0 -r clang-format --dry-run --Werror; }

headers_alone() {
  cmake --preset native -DZETA_BUILD_TESTS=OFF -B build/headers --log-level=WARNING &&
    cmake --build build/headers --target all_verify_interface_header_sets --parallel 2
}

# What must stand nowhere: paths of one machine, addresses of one package index. [x] keeps this line from matching itself.
machine_words() {
  git grep -nIE --untracked \
    -e '(^|[^a-z.])/wor[k]/' -e '/opt/zde[v]' -e '/opt/pyp[i]' -e '(localhost|127\.0\.0\.1):[0-9]+/simpl[e]' \
    -e 'https?://[^ "]*(re[g]istry|/simpl[e]/)' -e 'extra-index-ur[l] *=' -- . ':!LICENSE'
  [ $? -eq 1 ]  # 0: found some; above 1: could not look
}

echo "== Gates"
gate "ruff format" ruff format --check --quiet
gate "ruff" ruff check --quiet
gate "clang-format" clang_format
gate "mypy --strict" mypy
gate "import floors" lint-imports --no-logo
gate "import door" python tools/check_import_door.py
gate "include floors" python tools/check_include_floors.py
gate "memory edges" python tools/check_memory_edges.py
gate "headers alone" headers_alone
gate "codespell" codespell
gate "machine words" machine_words

if [ ${#failed[@]} -gt 0 ]; then
  printf 'gates: %d failed: %s\n' "${#failed[@]}" "$(IFS=,; echo "${failed[*]}")"
  exit 1
fi
echo "gates: all passed"
