# `make demo` and `make test` are the only commands needed on a fresh clone. Everything lands in .venv and build/.
SHELL := /bin/bash
# What is tested is what was installed, not a checkout that somebody put on the path.
unexport PYTHONPATH
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ENV := . $(VENV)/build-env.sh &&
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check
export CMAKE_BUILD_PARALLEL_LEVEL ?= $(shell nproc)
ifneq ($(shell command -v ccache),)
export CMAKE_CXX_COMPILER_LAUNCHER ?= ccache
endif
say = @printf '\n== %s\n' "$(1)"

BUILT_FROM := CMakeLists.txt pyproject.toml README.md LICENSE $(shell find cmake csrc/include csrc/runtime csrc/bindings python \
	-type f -not -name '*.pyc' -not -name '_core*.so' 2>/dev/null)

.PHONY: help demo serve test test-native test-asan test-tsan test-python stubs gates format wheel bench bench-full nightly \
	nightly-native nightly-model nightly-stress sanitizers clean

help: ## Say what each command does
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 16

# --- set-up ----------------------------------------------------------------------------------------------------------

$(VENV)/build-env.sh: tools/prepare.py
	$(call say,Checking what this machine brings)
	@command -v $(PYTHON) >/dev/null || { echo "Missing: apt-get install python3 python3-venv" >&2; exit 1; }
	@$(PYTHON) tools/prepare.py

# Dependencies change only with pyproject.toml; pip itself must know dependency groups (25.1).
$(VENV)/.dependencies: pyproject.toml $(VENV)/build-env.sh
	$(call say,Installing what zeta needs into $(VENV))
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install --upgrade 'pip>=25.1'
	@$(BIN)/python tools/requirements.py > $(VENV)/requirements.txt
	@$(PIP) install --group dev --requirement $(VENV)/requirements.txt
	@touch $@

$(VENV)/.installed: $(VENV)/.dependencies $(BUILT_FROM)
	$(call say,Building zeta and installing it into $(VENV))
	@$(ENV) $(PIP) install . --no-build-isolation --no-deps --force-reinstall \
		-C build-dir=build/wheel -C cmake.define.ZETA_WARNINGS_AS_ERRORS=ON
	@touch $@

# --- what people run -------------------------------------------------------------------------------------------------

demo: $(VENV)/.installed ## Build zeta, replay an hour of a real trace, play a minute of it live
	$(call say,zeta demo)
	@$(BIN)/zeta demo
	@echo "make demo: done"

serve: $(VENV)/.installed ## Build zeta, keep the gateway and three tiny engines running
	$(call say,zeta serve --demo)
	@$(BIN)/zeta serve --demo

test: test-native test-python ## Build zeta, run the C++ tests and the fast Python tests
	@echo "make test: passed"

# test-native, test-asan, test-tsan: one CMake preset each.
test-native test-asan test-tsan: test-%: $(VENV)/.dependencies
	$(call say,C++ tests ($*))
	@$(ENV) if [ -z "$${ZETA_HAS_DOCTEST:-}" ]; then \
		echo "SKIPPED: the C++ tests need doctest (apt-get install doctest-dev, rm -r $(VENV), make test)"; \
	else \
		cmake --preset $* --log-level=WARNING && cmake --build --preset $* -- --quiet && ctest --preset $*; \
	fi

test-python: $(VENV)/.installed
	$(call say,Python tests)
	@$(BIN)/python -m pytest -q -n 2 $(PYTEST_ARGS)

sanitizers: test-asan test-tsan ## Run the C++ tests under the address, thread and undefined-behaviour sanitizers

stubs: $(VENV)/.installed ## Regenerate python/zeta/_core.pyi from the built extension
	$(call say,Writing python/zeta/_core.pyi)
	@$(BIN)/python tools/make_stubs.py

gates: $(VENV)/.installed ## Run every static check (formats, types, floors, memory edges, words)
	@$(ENV) tools/gates.sh

format: $(VENV)/.dependencies ## Reformat Python and C++
	@$(BIN)/ruff format && $(BIN)/ruff check --fix --quiet
	@git ls-files -z '*.hpp' '*.cpp' | xargs -0 -r $(BIN)/clang-format -i
	@echo "make format: done"

wheel: $(VENV)/.dependencies ## Build the wheel and test it in an empty environment
	$(call say,Building the wheel)
	@rm -rf dist build/isolated
	@$(ENV) $(PIP) wheel . --no-deps --wheel-dir dist -C build-dir=build/isolated
	$(call say,Testing the wheel in an empty environment)
	@$(ENV) $(BIN)/python -m pytest -q -m wheel tests/packaging
	@ls -l dist/*.whl
	@echo "make wheel: passed"

bench: $(VENV)/.installed ## The short benchmarks, under five minutes
	@$(ENV) $(BIN)/python -m bench --short
	@echo "make bench: done"

bench-full: $(VENV)/.installed ## Every benchmark in full
	@$(ENV) $(BIN)/python -m bench --full
	@echo "make bench-full: done"

# Each may take hours.
nightly-native: nightly-model nightly-stress

nightly-model: $(VENV)/.dependencies
	$(call say,The model: 1000000 schedules of each scenario with every memory order weakened in turn)
	@$(ENV) cmake --preset native --log-level=WARNING && cmake --build --preset native -- --quiet
	@ZETA_MODEL_SCHEDULES=1000000 ZETA_MODEL_MUTANTS=all ctest --preset native -L interleave

nightly-stress: $(VENV)/.dependencies
	$(call say,The queues under stress: 1000000000 items under the thread sanitizer)
	@$(ENV) cmake --preset tsan --log-level=WARNING && cmake --build --preset tsan -- --quiet
	@ZETA_STRESS=1000000000 ctest --preset tsan -L stress --timeout 86400

nightly: $(VENV)/.installed sanitizers nightly-native ## The long tests (hours): nightly tier, sanitizers, model, stress
	$(call say,Nightly Python tests)
	@$(BIN)/python -m pytest -q -m nightly || [ $$? -eq 5 ]
	@echo "make nightly: passed"

clean: ## Remove everything that was built or installed here
	@rm -rf $(VENV) build dist
