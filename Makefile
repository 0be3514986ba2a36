# SPDX-License-Identifier: GPL-2.0-or-later
# A front for meson: everything happens in $(BUILD). `make help` lists the targets.
BUILD ?= build
SETUP ?=
override BUILD := $(abspath $(BUILD))
export BUILD

.PHONY: build demo check check-long check-sanitize bench clean install help deps-build deps-test deps-demo deps-bench configure

build: deps-build configure  ## build lodge
	@ninja -C $(BUILD)

demo: deps-demo build  ## boot a stock Linux from a copy-on-write disk; a shell on a terminal, a tour without
	@scripts/demo

check: deps-test build  ## all tests; the last line counts them
	@tests/run

check-long: deps-test build  ## the tests, with ten times the data through the drives and network cards of an old PC, and 1 GiB through each network
	@LODGE_TEST_LONG=1 PYTEST_ARGS="-k test_native_bulk" tests/run native
	@LODGE_TEST_LONG=1 tests/run full

check-sanitize: deps-test  ## unit tests and bare-metal guests under the address, leak and undefined-behaviour sanitizers; CC=clang likewise
	@$(MAKE) --no-print-directory build BUILD=$(BUILD)-sanitize SETUP="-Db_sanitize=address,undefined -Db_lundef=false -Dwerror=true $(SETUP)"
	@BUILD=$(BUILD)-sanitize ASAN_OPTIONS=detect_leaks=1:$$ASAN_OPTIONS UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1:$$UBSAN_OPTIONS tests/run unit native

bench: deps-bench  ## the benchmarks, on a release build
	@$(MAKE) --no-print-directory build BUILD=$(BUILD)-release SETUP="--buildtype=release $(SETUP)"
	@meson test -C $(BUILD)-release --benchmark --verbose

install: build  ## install under meson's prefix (SETUP=--prefix=DIR), honouring DESTDIR
	@meson install -C $(BUILD) --no-rebuild

clean:  ## remove the build folders
	@rm -rf $(BUILD) $(BUILD)-sanitize $(BUILD)-release

help:  ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1|\2/p' Makefile | column -t -s '|' 2>/dev/null || sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/make \1: \2/p' Makefile

configure:
	@[ -f $(BUILD)/build.ninja ] || meson setup $(BUILD) . $(SETUP)

deps-build deps-test deps-demo deps-bench:
	@scripts/deps $(@:deps-%=%)
