# Copyright (c) The nomad-driver-unikernel authors
# SPDX-License-Identifier: MPL-2.0

# The emulated ARM board: an arm64 Debian whose KVM works, under QEMU.
# Included at the end of GNUmakefile.

BOARD      := $(BUILD)/board
BOARD_HOST := $(BOARD)/host
BOARD_BOOT := $(BOARD)/kernel $(BOARD)/initrd $(BOARD)/root

# The board's Debian is kept for all clones, by what it is made from.
BOARD_ROOT := $(CACHE)/board-$(shell cat e2e/board/packages e2e/board/unpacked | sha256sum | cut -c 1-12)

##@ The emulated ARM board

.PHONY: board
board: board-files ## Boot the emulated ARM board and give a shell on it (GIC=2, CGROUP=v1; CMD='…' runs a command)
	@$(BIN)/board $(if $(GIC),-gic $(GIC)) $(if $(CGROUP),-cgroup $(CGROUP)) $(if $(CMD),-- sh -c '$(CMD)')

# Two boards: one of today, and one with the older interrupt controller and
# control groups. BOARDS names those to test, RUN the tests. Both run at once,
# as neither keeps two processors busy, and each shows what it did at its end.
BOARDS ?= gic3 gic2

.PHONY: e2e-arm
e2e-arm: board-files board-suite ## Test the driver under KVM on the emulated ARM board (BOARDS=gic2 RUN=TestHybrid: a part)
	@echo "==> Testing on the boards $(BOARDS)"
	@$(MAKE) --jobs=2 --output-sync=target $(BOARDS:%=e2e-on-%)

.PHONY: e2e-on-gic3 e2e-on-gic2
e2e-on-gic3: BOARD_IS := -gic 3 -cgroup v2
e2e-on-gic2: BOARD_IS := -gic 2 -cgroup v1
e2e-on-gic3 e2e-on-gic2: e2e-on-gic%:
	@echo "==> The board gic$*"
	@$(BIN)/board -timeout 15m $(BOARD_IS) -- env BOARD_GIC=$* \
		/host/suite.test -test.timeout 14m $(if $(V),-test.v) $(if $(RUN),-test.run '$(RUN)')

# What boots, and what the board sees as /host: Nomad, our Debian package, and
# what the tests run.
.PHONY: board-files
board-files: board-deps steps dist-arm64 $(BOARD_BOOT) $(NOMAD)-arm64
	@echo "==> Building for the board"
	@mkdir -p $(BOARD_HOST)/images
	@$(GO_BUILD) -o $(BIN)/board ./e2e/board
	@$(MAKE) -C examples/hybrid/vision OUT=$(abspath $(BOARD_HOST)/vision) ARCH=arm64
	@install -C $(NOMAD)-arm64 $(BOARD_HOST)/nomad
	@install -C -m 0644 $(DIST)/nomad-driver-unikernel_$(VERSION)_arm64.deb $(BOARD_HOST)/nomad-driver-unikernel.deb
	@install -C -m 0644 -t $(BOARD_HOST)/images examples/steps/data/steps.csv \
		$(addprefix $(BUILD)/steps/,steps-arm64 steps-x86_64 steps.cpio)
	@install -C -m 0644 -t $(BOARD_HOST) examples/hybrid/hybrid.nomad.hcl e2e/board/agent.hcl

.PHONY: bench-arm
bench-arm: board-files board-bench ## Measure on the emulated ARM board, as ratios, into docs/performance-arm.md (ROUNDS=2, DENSITY=5)
	@echo "==> Measuring on the board"
	@rm -rf $(BUILD)/bench-arm && mkdir -p $(BUILD)/bench-arm
	@$(BIN)/board -timeout 30m -output $(BUILD)/bench-arm -- sh -c 'cp -r /host/clone . && cd clone && \
		build/bin/bench -board -out /output $(if $(ROUNDS),-rounds $(ROUNDS)) $(if $(DENSITY),-density $(DENSITY)); \
		status=$$?; cp build/bench/nomad/*.log /output; exit $$status'
	@$(BIN)/bench -page $(BUILD)/bench-arm/results.json

# What the bench looks for in a clone, as far as it needs it. It is installed on
# the board, or seen there as /host, already.
board-bench: clone := $(BOARD_HOST)/clone
.PHONY: board-bench
board-bench:
	@mkdir -p $(clone)/build/bin $(clone)/build/steps $(clone)/examples/steps/data
	@touch $(clone)/GNUmakefile
	@$(GO_BUILD) -o $(BIN)/bench ./e2e/bench
	@GOOS=linux GOARCH=arm64 $(GO_BUILD) -o $(clone)/build/bin/bench ./e2e/bench
	@ln -sfn -t $(clone)/build/bin /host/nomad /usr/bin/nomad-driver-unikernel
	@install -C -m 0644 -t $(clone)/build/steps $(addprefix $(BUILD)/steps/,steps-arm64 steps-linux-arm64 steps.cpio)
	@install -C -m 0644 -t $(clone)/examples/steps examples/steps/Dockerfile
	@install -C -m 0644 -t $(clone)/examples/steps/data examples/steps/data/steps.csv

.PHONY: board-suite
board-suite:
	@GOOS=linux GOARCH=arm64 go test -c -tags board -trimpath -ldflags '-s -w' -o $(BOARD_HOST)/suite.test ./e2e/board/suite

.PHONY: board-deps
board-deps:
	@$(MAKE) deps PACKAGES='mmdebstrap e2fsprogs kmod cpio qemu-system-arm'

$(NOMAD)-arm64: export GOARCH := arm64
$(NOMAD)-arm64: tool := tools/nomad github.com/hashicorp/nomad
$(NOMAD)-arm64:
	@echo "==> Building $(notdir $@) (once for each release; takes minutes)"
	@mkdir -p $(CACHE)
	@cd $(firstword $(tool)) && $(GO_BUILD) -v -o $@.new.$$PPID $(lastword $(tool)) 2>&1 | $(PROGRESS)
	@mv $@.new.$$PPID $@

# A Debian without what nobody needs to run it. Its packages are unpacked, not
# configured, so nothing of it runs while it is made.
$(BOARD_ROOT):
	@echo "==> Making the board's Debian (kept in $(CACHE); takes about a minute)"
	@rm -rf $@.new && mkdir -p $@.new
	@mmdebstrap --quiet --architectures=arm64 --variant=extract --format=null --skip=chroot/mount \
		--aptopt='APT::Install-Recommends "false"' \
		--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
		--include="$$(tr '\n' ' ' < e2e/board/packages)" \
		--extract-hook='e2e/board/unpacked "$$1"' \
		--extract-hook='copy-out /board/kernel /board/modules.cpio $@.new' \
		--extract-hook='rm -r "$$1/board"' \
		--extract-hook='/sbin/mke2fs -q -t ext4 -O ^has_journal -m 0 -d "$$1" $@.new/root 2G' \
		bookworm /dev/null > /dev/null
	@mv $@.new $@

# Phony: the link follows what the Debian is made from, back as well as forth.
.PHONY: $(BOARD)/kernel $(BOARD)/root
$(BOARD)/kernel $(BOARD)/root: $(BOARD_ROOT)
	@mkdir -p $(BOARD)
	@ln -sf $(BOARD_ROOT)/$(@F) $@

# The kernel takes archives one after another as one.
.PHONY: $(BOARD)/initrd
$(BOARD)/initrd: $(BOARD_ROOT)
	@mkdir -p $(BOARD)
	@cp $(BOARD_ROOT)/modules.cpio $@.new
	@cd e2e/board && printf '%s\n' init start | cpio --quiet -o -H newc -R 0:0 >> $(abspath $@).new
	@mv $@.new $@
