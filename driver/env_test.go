// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"testing"

	"github.com/shoenig/test/must"
)

func TestOffer(t *testing.T) {
	env := map[string]string{
		"NOMAD_ALLOC_ID": "a", "NOMAD_JOB_NAME": "j", "NOMAD_PORT_http": "1", "NOMAD_ADDR_http": "2", "NOMAD_HOST_PORT_http": "3",
		"NOMAD_PORT_a_b": "4", "NOMAD_HOST_PORT_a_b": "5", "NOMAD_PORT_a_b_steps": "6",
	}
	must.Eq(t, []string{
		"NOMAD_PORT_a_b=4", "NOMAD_HOST_PORT_a_b=5", "NOMAD_PORT_a_b_steps=6", "NOMAD_PORT_http=1", "NOMAD_ADDR_http=2", "NOMAD_HOST_PORT_http=3",
		"NOMAD_ALLOC_ID=a", "NOMAD_JOB_NAME=j",
	}, offer(env, []string{"a-b"}))
}
