#!/usr/bin/env bash
# Every static check, all run even when one fails; ends with the names of those that failed. `make gates` runs it.
set -u
cd "$(dirname "$0")/.." || exit 2
failed=()

gate() {  # gate NAME COMMAND...
  local name=$1
  shift
  local output
  if output=$("$@" 2>&1); then
    printf '  ok    %s\n' "$name"
  else
    printf '  FAIL  %s\n%s\n' "$name" "$output"
    failed+=("$name")
  fi
}

cpp_files() { git ls-files -z --cached --others --exclude-standard -- '*.hpp' '*.cpp'; }
clang_format() { cpp_files | xargs -0 -r clang-format --dry-run --Werror; }

export PYTHONPATH=python
printf '\n== Gates\n'
gate "ruff format" ruff format --check --quiet
gate "ruff" ruff check --quiet
gate "clang-format" clang_format
gate "mypy --strict" mypy
gate "import floors" lint-imports --no-logo
gate "import door" python tools/check_import_door.py

if [ ${#failed[@]} -gt 0 ]; then
  printf 'gates: %d failed: %s\n' "${#failed[@]}" "$(IFS=,; echo "${failed[*]}")"
  exit 1
fi
echo "gates: all passed"
