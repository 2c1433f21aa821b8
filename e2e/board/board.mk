# Copyright (c) The nomad-driver-unikernel authors
# SPDX-License-Identifier: MPL-2.0

# The emulated ARM board: an arm64 Debian whose KVM works, under QEMU.
# Included at the end of GNUmakefile.

BOARD      := $(BUILD)/board
BOARD_HOST := $(BOARD)/host
BOARD_BOOT := $(BOARD)/kernel $(BOARD)/initrd $(BOARD)/root.ext2

##@ The emulated ARM board

.PHONY: board
board: board-files ## Boot the emulated ARM board and give a shell on it (GIC=2, CGROUP=v1; CMD='…' runs a command)
	@$(BIN)/board $(if $(GIC),-gic $(GIC)) $(if $(CGROUP),-cgroup $(CGROUP)) $(if $(CMD),-- sh -c '$(CMD)')

# Two boards: one of today, and one with the older interrupt controller and
# control groups. BOARDS names the one to test, RUN the tests.
BOARDS ?= gic3 gic2
BOARD_SUITE = /host/suite.test -test.v -test.timeout 14m $(if $(RUN),-test.run '$(RUN)')

.PHONY: e2e-arm
e2e-arm: board-files board-suite ## Test the driver under KVM on the emulated ARM board
	@for board in $(BOARDS); do echo "==> Testing on the board $$board"; \
		case $$board in \
		gic3) $(BIN)/board -timeout 15m -gic 3 -cgroup v2 -- env BOARD_GIC=3 $(BOARD_SUITE) ;; \
		gic2) $(BIN)/board -timeout 15m -gic 2 -cgroup v1 -- env BOARD_GIC=2 $(BOARD_SUITE) ;; \
		*) echo "no board $$board: use gic3 or gic2" >&2; false ;; \
		esac; done

# What boots, and what the board sees as /host.
.PHONY: board-files
board-files: board-deps steps $(BOARD_BOOT) $(NOMAD)-arm64
	@echo "==> Building for the board"
	@mkdir -p $(BOARD_HOST)/plugins $(BOARD_HOST)/images
	@go build -o $(BIN)/board ./e2e/board
	@GOOS=linux GOARCH=arm64 $(GO_BUILD) -o $(BOARD_HOST)/plugins/nomad-driver-unikernel .
	@GOOS=linux GOARCH=arm64 $(GO_BUILD) -o $(BOARD_HOST)/nomad-hybrid ./cmd/nomad-hybrid
	@$(MAKE) -C examples/hybrid/vision OUT=$(abspath $(BOARD_HOST)/vision) ARCH=arm64
	@cp -u $(NOMAD)-arm64 $(BOARD_HOST)/nomad
	@cp -u $(BUILD)/steps/steps-arm64 $(BUILD)/steps/steps.cpio examples/steps/data/steps.csv $(BOARD_HOST)/images/
	@cp -u examples/hybrid/hybrid.nomad.hcl $(BOARD_HOST)/

.PHONY: board-suite
board-suite:
	@GOOS=linux GOARCH=arm64 go test -c -tags board -trimpath -ldflags '-s -w' -o $(BOARD_HOST)/suite.test ./e2e/board/suite

.PHONY: board-deps
board-deps:
	@$(MAKE) deps PACKAGES='mmdebstrap genext2fs kmod cpio qemu-system-arm'

$(NOMAD)-arm64: export GOARCH := arm64
$(NOMAD)-arm64: tool := tools/nomad github.com/hashicorp/nomad
$(NOMAD)-arm64:
	@echo "==> Building $(notdir $@) (once for each release; takes minutes)"
	@mkdir -p $(CACHE)
	@cd $(firstword $(tool)) && $(GO_BUILD) -v -o $@.new.$$PPID $(lastword $(tool)) 2>&1 | $(PROGRESS)
	@mv $@.new.$$PPID $@

# A Debian without what nobody needs to run it. Its packages are unpacked, not
# configured, so nothing of it runs while it is made.
$(BOARD)/root.ext2: e2e/board/packages e2e/board/unpacked
	@echo "==> Making the board's Debian (once; takes half a minute)"
	@mkdir -p $(BOARD)
	@mmdebstrap --quiet --architectures=arm64 --variant=extract --format=ext2 \
		--aptopt='APT::Install-Recommends "false"' \
		--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
		--include="$$(tr '\n' ' ' < e2e/board/packages)" \
		--extract-hook='e2e/board/unpacked "$$1"' \
		--extract-hook='copy-out /board/kernel /board/modules.cpio $(BOARD)' \
		--extract-hook='rm -r "$$1/board"' \
		bookworm $@.new
	@mv $@.new $@

$(BOARD)/kernel: $(BOARD)/root.ext2 ;

# The kernel takes archives one after another as one.
$(BOARD)/initrd: $(BOARD)/root.ext2 e2e/board/init e2e/board/start
	@cd e2e/board && printf '%s\n' init start | cpio --quiet -o -H newc -R 0:0 > $(abspath $@).scripts
	@cat $(BOARD)/modules.cpio $@.scripts > $@
	@rm $@.scripts
