// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package image

import (
	"context"
	"debug/elf"
	"encoding/json"
	"testing"

	"github.com/shoenig/test/must"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/unikernel/guest"
)

func TestInspect(t *testing.T) {
	h, s := newHub(t), newSite(t, Options{})
	s.request.Image = h.push("app:1", kraftkit(t, "qemu", "arm64", arm, []byte("cpio")))
	summary, err := s.store.Inspect(context.Background(), s.request, nil)
	must.NoError(t, err)
	must.Eq(t, guest.Unikraft, summary.Family)
	must.Eq(t, int64(len(arm)), summary.KernelBytes)
	must.Eq(t, 4, summary.InitrdBytes)
	must.Eq(t, "", summary.Problem)
	must.Eq(t, Ability{"environment", "no", "it was built without LIBPOSIX_ENVIRON_LIBPARAM"}, summary.Takes[1])
	text, err := json.Marshal(summary)
	must.NoError(t, err)
	must.StrContains(t, string(text), `"format":"arm64 Linux Image"`)

	// What cannot run is told of all the same.
	s.put("task/local/k", solo5ELF(elf.EM_AARCH64, solo5HVT, Device{"service", NetDevice}), 0o644)
	s.request.Image = "local/k"
	summary, err = s.store.Inspect(context.Background(), s.request, nil)
	must.NoError(t, err)
	must.Eq(t, guest.Solo5, summary.Family)
	must.StrContains(t, summary.Problem, "QEMU cannot run it")

	s.put("task/local/u", unikraftELF("0.17.0"), 0o644)
	s.request.Image = "local/u"
	summary, err = s.store.Inspect(context.Background(), s.request, nil)
	must.NoError(t, err)
	must.Eq(t, "unknown", summary.Takes[0].Can)

	s.put("task/local/noise", []byte("noise"), 0o644)
	s.request.Image = "local/noise"
	_, err = s.store.Inspect(context.Background(), s.request, nil)
	must.ErrorContains(t, err, "text, not a kernel")
}
