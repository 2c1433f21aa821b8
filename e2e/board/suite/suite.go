// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// Package suite tests the driver on the emulated ARM board, under KVM: with
// the build tag "board" its test program is built for arm64 and run there by
// `make e2e-arm`. It may change all of the machine that it runs on.
package suite
