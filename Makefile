# SPDX-License-Identifier: Apache-2.0
#
# A thin door: every target is one line into meson or a script.
#   make         builds build/trivisor
#   make run     installs what is missing, builds, fetches Debian's cloud kernel and boots it to a shell
#   make image   a disk image with a whole Debian: build/image/debian.img (SIZE=, KERNEL=, KEY=, SMALL=1)
#   make test    every suite; the last line is the verdict
#   make bench   paired measurements against QEMU (arguments: BENCH="--pairs 5")
#   make soak    boots in a row, then stress (arguments: SOAK="--boots 20 --cpus 4")
ENGINE ?= bt
MEMORY ?= 512M
CPUS ?= 1
APPEND ?=
SUITE ?= bookworm
SIZE ?= 3G
KERNEL ?= cloud
KEY ?=
SMALL ?=
BENCH ?=
SOAK ?=

.PHONY: all deps run image test bench soak images format lint install clean
all: build/build.ninja
	@ninja -C build
build/build.ninja:
	@meson setup build
deps:
	@tools/deps.sh
images: all
	@ninja -C build images
run:
	@tools/run.sh --engine $(ENGINE) -m $(MEMORY) -c $(CPUS) -- $(APPEND)
image:
	@tools/deps.sh build image
	@tools/mkdebian.py --suite $(SUITE) --size $(SIZE) --kernel $(KERNEL) \
	    $(if $(KEY),--key "$(KEY)") $(if $(SMALL),--small)
test:
	@tests/run.py
bench: images
	@bench/run.py $(BENCH)
soak: images
	@bench/soak.py $(SOAK)
format:
	@tools/format.sh
lint:
	@tools/lint.py
install: all
	@meson install -C build
clean:
	rm -rf build build-clang build-asan
