// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package driver

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoenig/test/must"
)

// A plugin stays while an agent listens, and for a time of grace after it.
func TestAgent_Outlived(t *testing.T) {
	cases := []struct {
		name string
		life func(*agent)
		ends time.Duration
	}{
		{"no agent ever came", func(*agent) {}, agentGrace},
		{"the agent was killed", func(a *agent) {
			a.connect()
			time.Sleep(time.Hour)
			a.disconnect()
		}, time.Hour + agentGrace},
		{"the next agent took it up", func(a *agent) {
			a.connect()
			time.Sleep(time.Hour)
			a.disconnect()
			time.Sleep(agentGrace - time.Second)
			a.connect()
			time.Sleep(time.Hour)
			a.disconnect()
		}, 2*time.Hour + 2*agentGrace - time.Second},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var a agent
				began := time.Now()
				go tc.life(&a)
				must.True(t, a.outlived(t.Context(), agentGrace))
				must.Eq(t, tc.ends, time.Since(began))
			})
		})
	}
}

func TestAgent_PluginEndsFirst(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	must.False(t, new(agent).outlived(ctx, agentGrace))
}
