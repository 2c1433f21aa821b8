# Copyright (c) The nomad-driver-unikernel authors
# SPDX-License-Identifier: MPL-2.0

# The emulated ARM board: an arm64 Debian whose KVM works, under QEMU.
# Included by GNUmakefile. What it needs of this machine: mmdebstrap,
# genext2fs, kmod, cpio, qemu-system-arm.

BOARD := build/board

# A Debian without what nobody needs to run it. Its packages are unpacked, not
# configured, so nothing of it runs while it is made.
$(BOARD)/root.ext2: e2e/board/packages e2e/board/unpacked
	mkdir -p $(BOARD)
	mmdebstrap --quiet --architectures=arm64 --variant=extract --format=ext2 \
		--aptopt='APT::Install-Recommends "false"' \
		--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
		--include="$$(tr '\n' ' ' < e2e/board/packages)" \
		--extract-hook='e2e/board/unpacked "$$1"' \
		--extract-hook='copy-out /board/kernel /board/modules.cpio $(BOARD)' \
		--extract-hook='rm -r "$$1/board"' \
		bookworm $@

# The kernel takes archives one after another as one.
$(BOARD)/initrd: $(BOARD)/root.ext2 e2e/board/init e2e/board/start
	cd e2e/board && printf '%s\n' init start | cpio --quiet -o -H newc -R 0:0 > $(abspath $@).scripts
	cat $(BOARD)/modules.cpio $@.scripts > $@
	rm $@.scripts
