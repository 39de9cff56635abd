# SPDX-License-Identifier: GPL-2.0-or-later
# The few words a person types; the build itself is meson's.
#
#   make            build; the programs are build/qemu-dp, build/qemu-img, build/qemu-io
#   make run        build, serve a disk and show it working (IMAGE=path, ONCE=1)
#   make check      build and run all tests (SANITIZE=1: with sanitizers)
#   make soak       simulate crashes: SEEDS=N of them, from SEED_BASE=M on
#   make bench      measure against qemu-storage-daemon (BENCH="--quick ..."); CATALOGUE=1:
#                   each switch of patches/ on and off; DIARY=1: configurations, with charts
#   make flamegraph profile the daemon under a workload (CELL=mapped-randread-32)
#   make fuzz       fuzz with clang (TIME=60 seconds each, TARGET=name for one)
#   make lint       static checks of all of our C (ALL=1: scan-build as well)
#   make coverage   which lines of block/ and qdp/export the tests reach; 90 % must be
#   make tsan       threads under the thread sanitizer
#   make valgrind   coroutines under valgrind
#   make install    into PREFIX (DESTDIR honoured)
#
# DEPS=no: do not install missing Debian packages.

BUILD := build$(if $(SANITIZE),-asan)
CONFIGURE := --build-dir=$(BUILD) $(if $(SANITIZE),--enable-sanitizers --enable-debug) \
	$(if $(CI),--enable-werror) $(if $(PREFIX),--prefix=$(PREFIX))
PROGRAMS := qemu-dp qemu-img qemu-io
export DEPS

.PHONY: all deps deps-test run check soak lint coverage tsan valgrind bench flamegraph fuzz install clean

all: deps
	@[ -f $(BUILD)/build.ninja ] || ./configure $(CONFIGURE)
	@ninja -C $(BUILD)
	@for p in $(PROGRAMS); do for d in qdp qdp/tool; do \
	    [ ! -x $(BUILD)/$$d/$$p ] || ln -sf $$d/$$p $(BUILD)/$$p; done; done

deps:
	@scripts/install-deps

deps-test:
	@scripts/install-deps --test

run: all
	@python3 scripts/run-demo.py --build $(BUILD) $(if $(IMAGE),--image "$(IMAGE)") \
	    $(if $(ONCE),--once)

check: deps-test all
	@$(if $(SANITIZE),CHECK_TIMEOUT=1200 )python3 scripts/run-checks.py --build $(BUILD)

soak: deps-test all
	@$(BUILD)/tests/sim/crash --all --seeds $(or $(SEEDS),10000) \
	    --seed-base $(or $(SEED_BASE),1)

bench: deps-test all
	@if [ -n "$(CATALOGUE)" ]; then python3 tests/bench/on_off.py --build $(BUILD) --write $(BENCH); \
	elif [ -n "$(DIARY)" ]; then python3 tests/bench/diary.py --build $(BUILD) $(BENCH); \
	else python3 tests/bench/bench.py --build $(BUILD) $(BENCH); fi

flamegraph: deps-test all
	@python3 tests/bench/flamegraph.py --build $(BUILD) $(if $(CELL),--cell $(CELL)) \
	    $(if $(RIG),--rig $(RIG)) --out $(or $(OUT),flamegraph.svg)

lint: all
	@scripts/lint $(if $(ALL),--all) $(BUILD)

coverage: deps-test
	@scripts/coverage

# what runs on several threads, watched by the thread sanitizer
tsan: deps
	@[ -f build-tsan/build.ninja ] || \
	    ./configure --build-dir=build-tsan --enable-debug --enable-tsan
	@meson test -C build-tsan --suite aio

# the coroutines' marks for valgrind, and what it says of them
valgrind: all
	@meson test -C $(BUILD) --suite aio --no-rebuild -t 20 \
	    --wrapper "valgrind --quiet --error-exitcode=9" coroutine

fuzz: deps
	@scripts/install-deps --fuzz
	@tests/fuzz/run $(or $(TIME),60) $(TARGET)

install: all
	@meson install -C $(BUILD)

clean:
	rm -rf build build-asan build-tsan build-coverage
