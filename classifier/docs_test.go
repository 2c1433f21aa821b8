// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package classifier

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/shoenig/test/must"
)

var fates = map[fate]string{
	kept: "kept", replaced: "replaced", ofImage: "goes with the image", needless: "goes: needless",
	arguments: "goes with hybrid_unikernel_args, else container", translated: "translated, or container", stuck: "container",
}

// TestDocs keeps the tables of docs/hybrid.md in step with the code.
func TestDocs(t *testing.T) {
	raw, err := os.ReadFile("../docs/hybrid.md")
	must.NoError(t, err)
	doc := string(raw)
	var missing []string
	want := func(line string) {
		if !strings.Contains(doc, line+"\n") {
			missing = append(missing, line)
		}
	}
	for _, table := range [][]KeyRule{dockerKeys, unikernelKeys} {
		for _, r := range table {
			want(fmt.Sprintf("| `%s` | %s | %s |", r.Key, fates[r.fate], r.Why))
		}
	}
	for _, hint := range slices.Sorted(maps.Keys(hintValues)) {
		if !strings.Contains(doc, "| `"+hint+"` |") {
			missing = append(missing, "| `"+hint+"` | …")
		}
	}
	for _, k := range signalKinds {
		want(fmt.Sprintf("| `%s` | %s | %s |", k.name, k.nature, k.from))
	}
	must.Eq(t, "", strings.Join(missing, "\n"), must.Sprint("docs/hybrid.md lacks these lines"))
}

// TestDockerKeysKnown: every key of Nomad's docker driver has its row. The list
// is that of Nomad 1.11's taskConfigSpec.
func TestDockerKeysKnown(t *testing.T) {
	for _, key := range strings.Fields(`image advertise_ipv6_address args auth auth_soft_fail cap_add cap_drop cgroupns
		command cpuset_cpus cpu_hard_limit cpu_cfs_period container_exists_attempts devices dns_search_domains
		dns_options dns_servers entrypoint extra_hosts force_pull group_add healthchecks hostname init interactive
		ipc_mode ipv4_address ipv6_address isolation labels load logging mac_address memory_hard_limit mount mounts
		network_aliases network_mode oom_score_adj runtime pids_limit pid_mode ports port_map privileged
		image_pull_timeout readonly_rootfs security_opt shm_size storage_opt sysctl tty ulimit uts_mode userns_mode
		volumes volume_driver work_dir`) {
		must.NotEq(t, "nomad-hybrid does not know this key", ruleFor(dockerKeys, key).Why, must.Sprint(key))
	}
}
