// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package classifier

import (
	"fmt"
	"path"
	"reflect"
	"slices"
	"strings"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/classifier/jobfile"
)

// What becomes of a key of one driver's config in the other's. docs/hybrid.md
// shows these tables; a test keeps the two the same.
type fate int

const (
	// kept: the key means the same on both sides.
	kept fate = iota
	// replaced: the value changes, the key stays.
	replaced
	// ofImage: the key is about the image that is replaced, and goes with it.
	ofImage
	// needless: what the key asks for holds without it on the other side.
	needless
	// arguments: the key says what runs; it goes when hybrid_unikernel_args
	// says it anew, else it has no counterpart.
	arguments
	// translated: the key is written in another way, where its value allows.
	translated
	// stuck: the key has no counterpart. Unless its value asks for nothing
	// (false, 0, empty), the task stays what it is.
	stuck
)

// KeyRule is one row of a translation table.
type KeyRule struct {
	Key  string
	fate fate
	Why  string
}

// dockerKeys says what becomes of the docker driver's config under the
// unikernel driver. A key that is not listed is stuck.
var dockerKeys = []KeyRule{
	{"image", replaced, "by hybrid_unikernel_image or the policy's catalog"},
	{"args", kept, "the application's arguments; hybrid_unikernel_args replaces them"},
	{"ports", kept, "labels of the group's network block"},
	{"command", arguments, "a unikernel is its command"},
	{"entrypoint", arguments, "a unikernel is its entry point"},
	{"mount", translated, "binds of folders in the task's directory become mount blocks"},
	{"mounts", translated, "as mount"},
	{"volumes", translated, "binds of folders in the task's directory become mount blocks"},
	{"network_mode", translated, "bridge and default are what the unikernel driver does anyway, none means the same"},
	{"auth", ofImage, "credentials for pulling the container image"},
	{"auth_soft_fail", ofImage, "about pulling the container image"},
	{"force_pull", ofImage, "about pulling the container image"},
	{"image_pull_timeout", ofImage, "about pulling the container image"},
	{"load", ofImage, "an archive of the container image"},
	{"container_exists_attempts", ofImage, "about Docker's own bookkeeping"},
	{"healthchecks", ofImage, "about the container image's HEALTHCHECK; Nomad's checks stay"},
	{"isolation", ofImage, "about the container's own isolation"},
	{"cap_drop", needless, "a guest has none of the host's capabilities"},
	{"init", needless, "a unikernel has no child processes to reap"},
	{"pids_limit", needless, "a unikernel is one process"},
	{"readonly_rootfs", needless, "a guest's root is its own copy"},
	{"security_opt", needless, "a guest makes no system calls on the host"},
	{"cap_add", stuck, "a guest has none of the host's capabilities"},
	{"privileged", stuck, "a guest has no access to the host"},
	{"devices", stuck, "a guest has no devices of the host"},
	{"work_dir", stuck, "a unikernel has no working directory to choose"},
	{"labels", stuck, "labels are read by Docker's own tools"},
	{"logging", stuck, "a unikernel's console goes to Nomad's logs only"},
	{"hostname", stuck, "the unikernel driver sets no host name"},
	{"extra_hosts", stuck, "a unikernel has no hosts file of the driver's"},
	{"dns_servers", stuck, "set the group's network dns block instead"},
	{"dns_search_domains", stuck, "set the group's network dns block instead"},
	{"dns_options", stuck, "set the group's network dns block instead"},
	{"port_map", stuck, "use ports, and `to` in the group's network block"},
	{"tty", stuck, "a unikernel has no terminal"},
	{"interactive", stuck, "a unikernel's standard input is at its end"},
	{"runtime", stuck, "names a container runtime"},
	{"ulimit", stuck, "limits of Linux processes"},
	{"sysctl", stuck, "settings of the host's kernel"},
	{"shm_size", stuck, "a unikernel has no /dev/shm"},
	{"memory_hard_limit", stuck, "a guest's memory is fixed"},
	{"cpu_hard_limit", stuck, "set by the container runtime"},
	{"cpu_cfs_period", stuck, "set by the container runtime"},
	{"cpuset_cpus", stuck, "set by the container runtime"},
	{"group_add", stuck, "a unikernel has no users and groups"},
	{"pid_mode", stuck, "shares the host's processes"},
	{"ipc_mode", stuck, "shares the host's IPC"},
	{"uts_mode", stuck, "shares the host's name"},
	{"userns_mode", stuck, "a unikernel has no users"},
	{"cgroupns", stuck, "a unikernel sees no cgroups"},
	{"mac_address", stuck, "every guest has the same address inside its namespace"},
	{"ipv4_address", stuck, "an address in a Docker network"},
	{"ipv6_address", stuck, "an address in a Docker network"},
	{"advertise_ipv6_address", stuck, "an address in a Docker network"},
	{"network_aliases", stuck, "names in a Docker network"},
	{"oom_score_adj", stuck, "set by the container runtime"},
	{"storage_opt", stuck, "about Docker's storage"},
	{"volume_driver", stuck, "about Docker's volumes"},
}

// unikernelKeys says what becomes of the unikernel driver's config under the
// docker driver.
var unikernelKeys = []KeyRule{
	{"image", replaced, "by hybrid_container_image"},
	{"args", kept, "the application's arguments"},
	{"ports", kept, "labels of the group's network block"},
	{"mount", translated, "becomes a bind mount"},
	{"initrd", ofImage, "part of the unikernel"},
	{"pull", ofImage, "about getting the unikernel image"},
	{"guest", ofImage, "about the unikernel"},
	{"guest_version", ofImage, "about the unikernel"},
	{"arch", ofImage, "about the unikernel"},
	{"kernel_args", ofImage, "for the guest's kernel"},
	{"accelerator", ofImage, "about the virtual machine"},
	{"machine", ofImage, "about the virtual machine"},
	{"network_mode", kept, "none means the same"},
	{"dhcp", ofImage, "about the virtual machine's network"},
	{"ready", ofImage, "about the virtual machine; use a service check"},
	{"warm", ofImage, "about the virtual machine"},
	{"extra_args", ofImage, "for QEMU"},
}

func ruleFor(table []KeyRule, key string) KeyRule {
	for _, r := range table {
		if r.Key == key {
			return r
		}
	}
	return KeyRule{Key: key, fate: stuck, Why: "nomad-hybrid does not know this key"}
}

// translation collects changes of config and what stands in their way.
type translation struct {
	changes  []jobfile.ConfigChange
	blockers []string
	notes    []string
	mounts   []map[string]any
}

func (tr *translation) remove(key string) {
	tr.changes = append(tr.changes, jobfile.ConfigChange{Key: key, Remove: true})
}

func (tr *translation) block(format string, args ...any) {
	tr.blockers = append(tr.blockers, fmt.Sprintf(format, args...))
}

// dockerToUnikernel translates a docker config key by key. newArgs says that
// the author gives the unikernel its own arguments.
func dockerToUnikernel(config map[string]any, newArgs bool) *translation {
	tr := &translation{}
	for _, key := range sorted(config) {
		value, rule := config[key], ruleFor(dockerKeys, key)
		switch {
		case rule.fate == kept || rule.fate == replaced:
		case rule.fate == ofImage || rule.fate == needless || asksNothing(value):
			tr.remove(key)
		case rule.fate == arguments && newArgs:
			tr.remove(key)
		case rule.fate == arguments:
			tr.block("config.%s: %s; hybrid_unikernel_args gives it other arguments", key, rule.Why)
		case rule.fate == translated:
			tr.dockerValue(key, value)
		default:
			tr.block("config.%s: %s", key, rule.Why)
		}
	}
	if len(tr.mounts) > 0 {
		tr.changes = append(tr.changes, jobfile.ConfigChange{Key: "mount", Value: tr.mounts})
	}
	tr.mountNotes()
	return tr
}

// dockerValue translates the keys whose value decides.
func (tr *translation) dockerValue(key string, value any) {
	switch key {
	case "network_mode":
		if value == "none" {
			return // so it is called in both
		}
		if mode, ok := value.(string); !ok || !slices.Contains([]string{"bridge", "default"}, mode) {
			tr.block("config.network_mode = %v: choose the network in the group's network block", value)
			return
		}
		tr.remove(key)
	case "volumes":
		tr.volumes(value)
	default:
		tr.dockerMounts(key, value)
	}
}

func (tr *translation) volumes(value any) {
	for _, v := range list(value) {
		parts := strings.Split(fmt.Sprint(v), ":")
		if len(parts) < 2 || len(parts) > 3 || !inTaskDir(parts[0]) {
			tr.block("config.volumes: %q is no bind of a folder in the task's directory", v)
			return
		}
		m := map[string]any{"source": parts[0], "target": parts[1]}
		if len(parts) == 3 {
			if parts[2] != "ro" && parts[2] != "rw" {
				tr.block("config.volumes: the options of %q have no counterpart", v)
				return
			}
			m["readonly"] = parts[2] == "ro"
		}
		tr.mounts = append(tr.mounts, m)
	}
	tr.remove("volumes")
}

func (tr *translation) dockerMounts(key string, value any) {
	for _, v := range list(value) {
		m, ok := v.(map[string]any)
		if !ok || len(m) == 0 {
			tr.block("config.%s: %v is no mount", key, v)
			return
		}
		out := map[string]any{}
		for _, k := range sorted(m) {
			switch k {
			case "source", "target", "readonly":
				out[k] = m[k]
			case "type":
			default:
				if !asksNothing(m[k]) {
					tr.block("config.%s: %s has no counterpart", key, k)
					return
				}
			}
		}
		if m["type"] != "bind" || !inTaskDir(fmt.Sprint(m["source"])) {
			tr.block("config.%s: %v at %v is no bind of a folder in the task's directory", key, m["source"], m["target"])
			return
		}
		tr.mounts = append(tr.mounts, out)
	}
	if key != "mount" { // mount itself is set anew
		tr.remove(key)
	}
}

// mountNotes tells of mounts that a container may write and the guest may not:
// the drivers' defaults differ.
func (tr *translation) mountNotes() {
	for _, m := range tr.mounts {
		if _, said := m["readonly"]; !said {
			tr.notes = append(tr.notes, fmt.Sprintf("%v at %v is read only in the unikernel; say readonly = false (or :rw) if it writes there, which takes an image with 9p", m["source"], m["target"]))
		}
	}
}

// unikernelToDocker translates the other way.
func unikernelToDocker(config map[string]any) *translation {
	tr := &translation{}
	for _, key := range sorted(config) {
		rule := ruleFor(unikernelKeys, key)
		switch rule.fate {
		case kept, replaced:
		case ofImage, needless:
			tr.remove(key)
		case translated:
			for _, v := range list(config[key]) {
				m, ok := v.(map[string]any)
				if !ok {
					tr.block("config.%s: %v is no mount", key, v)
					continue
				}
				out := map[string]any{"type": "bind"}
				for k, v := range m {
					out[k] = v
				}
				tr.mounts = append(tr.mounts, out)
			}
		default:
			if asksNothing(config[key]) {
				tr.remove(key)
				continue
			}
			tr.block("config.%s: %s", key, rule.Why)
		}
	}
	if len(tr.mounts) > 0 {
		tr.changes = append(tr.changes, jobfile.ConfigChange{Key: "mount", Value: tr.mounts})
	}
	return tr
}

// inTaskDir tells whether the docker driver takes a source as a path below the
// task's own directory.
func inTaskDir(source string) bool {
	if source == "" || path.IsAbs(source) || strings.Contains(source, "$") {
		return false
	}
	clean := path.Clean(source)
	top, _, _ := strings.Cut(clean, "/")
	return slices.Contains([]string{"local", "secrets"}, top)
}

// asksNothing tells whether a value is what the driver takes when the key is
// absent: false, zero, empty.
func asksNothing(v any) bool {
	if v == nil {
		return true
	}
	r := reflect.ValueOf(v)
	switch r.Kind() {
	case reflect.Slice, reflect.Map:
		return r.Len() == 0
	default:
		return r.IsZero()
	}
}

// list returns the elements of a list, or the value itself as the only one.
func list(v any) []any {
	switch v := v.(type) {
	case []any:
		return v
	case []map[string]any:
		out := make([]any, len(v))
		for i, m := range v {
			out[i] = m
		}
		return out
	case nil:
		return nil
	default:
		return []any{v}
	}
}

func sorted(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
