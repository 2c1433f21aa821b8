// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
)

// Census is what a cluster in a sandbox has at a moment, by kind.
type Census map[string][]string

// kinds is what a census counts, in the order of its table.
var kinds = []string{
	qemuKind, "plugin processes", LogCollectors, "other processes",
	descriptorKind, Goroutines,
	"network interfaces", Namespaces, "iptables rules", "address leases",
	"cgroups of tasks", "mounts", "sockets of machines", "files of machines", "allocation folders",
}

// tasksKinds are those of which there is nothing when there are no tasks.
var tasksKinds = []string{
	qemuKind, LogCollectors, Namespaces, "address leases", "cgroups of tasks",
	"sockets of machines", "files of machines", "allocation folders",
}

const (
	qemuKind       = "QEMU processes"
	descriptorKind = "descriptors of the plugin"
	// LogCollectors are Nomad's logmon, one for each task.
	LogCollectors = "log collectors"
	// Namespaces are those of allocations' networks, by path.
	Namespaces = "network namespaces"
	// Goroutines are counted by AddGoroutines alone.
	Goroutines = "goroutines of the plugin"
)

// Census counts all but goroutines. task is the name of the tasks whose cgroups
// are counted: cgroups are shared with the machine, and may be left there by a
// run that was killed.
func (c *Cluster) Census(task string) (Census, error) {
	found := Census{}
	return found, errors.Join(
		c.countProcesses(found),
		found.interfaces(),
		found.tree(Namespaces, "/run/netns", 1, everything),
		found.rules(),
		found.tree("address leases", "/run/cni", 8, func(e fs.DirEntry) bool { return net.ParseIP(e.Name()) != nil }),
		found.tree("cgroups of tasks", "/sys/fs/cgroup", 5, func(e fs.DirEntry) bool {
			return e.IsDir() && strings.HasSuffix(strings.TrimSuffix(e.Name(), ".scope"), "."+task) && sinceStart(e)
		}),
		found.mounts(),
		found.tree("sockets of machines", driverFolder, 2, func(e fs.DirEntry) bool { return e.Type()&fs.ModeSocket != 0 }),
		found.tree("files of machines", driverFolder, 2, func(e fs.DirEntry) bool { return e.Type()&fs.ModeSocket == 0 }),
		found.tree("allocation folders", filepath.Dir(c.allocDir("x")), 1, everything),
	)
}

func everything(fs.DirEntry) bool { return true }

// start is about when this program was started.
var start = time.Now()

// sinceStart tells a cgroup of this run from what a run that was killed has left.
func sinceStart(entry fs.DirEntry) bool {
	info, err := entry.Info()
	return err == nil && info.ModTime().After(start)
}

// countProcesses counts all processes of the sandbox, but this one.
func (c *Cluster) countProcesses(found Census) error {
	pids, err := processes()
	for _, pid := range pids {
		line := commandLine(pid)
		entry := strconv.Itoa(pid) + " " + line
		switch {
		case pid == os.Getpid() || line == "": // empty: it ended, and is being reaped
		case machineOf(pid) != "":
			found.add(qemuKind, entry)
		case c.isPlugin(pid):
			found.add("plugin processes", line) // its number changes as it is killed
			for _, link := range openFiles(pid) {
				if target, err := os.Readlink(link); err == nil {
					found.add(descriptorKind, target)
				}
			}
		case strings.Contains(line, " logmon"):
			found.add(LogCollectors, entry)
		default:
			found.add("other processes", line)
		}
	}
	return err
}

func (f Census) add(kind, what string) { f[kind] = append(f[kind], what) }

func (f Census) interfaces() error {
	links, err := net.Interfaces()
	for _, link := range links {
		f.add("network interfaces", link.Name)
	}
	return err
}

func (f Census) rules() error {
	out, err := exec.Command("iptables-save").Output()
	for line := range bytes.Lines(out) {
		if bytes.HasPrefix(line, []byte("-A")) {
			f.add("iptables rules", string(bytes.TrimSpace(line)))
		}
	}
	return err
}

func (f Census) mounts() error {
	points, err := mountPoints()
	f["mounts"] = points
	return err
}

// tree counts what lies below a folder, which need not be there.
func (f Census) tree(kind, root string, depth int, counts func(fs.DirEntry) bool) error {
	return filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it went while we looked
		}
		if err != nil {
			return err
		}
		below := strings.Count(strings.TrimPrefix(path, root), "/")
		if below > 0 && counts(entry) {
			f.add(kind, path)
		}
		if entry.IsDir() && below >= depth {
			return fs.SkipDir
		}
		return nil
	})
}

// NetworkKinds are what Nomad's client makes for an allocation's network.
var NetworkKinds = []string{"network interfaces", Namespaces, "iptables rules", "address leases", "mounts"}

// DriverThings lists what of the driver's is in a network namespace: taps and
// tables of rules.
func DriverThings(namespace string) ([]string, error) {
	var found []string
	err := ns.WithNetNSPath(namespace, func(ns.NetNS) error {
		links, err := netlink.LinkList()
		if err != nil {
			return err
		}
		for _, link := range links {
			if link.Type() == "tuntap" {
				found = append(found, "tap "+link.Attrs().Name)
			}
		}
		conn, err := nftables.New()
		if err != nil {
			return err
		}
		tables, err := conn.ListTables()
		for _, table := range tables {
			found = append(found, "table "+table.Name)
		}
		return err
	})
	return found, err
}

// Quiet tells that nothing of a task is there.
func (f Census) Quiet() bool {
	return !slices.ContainsFunc(tasksKinds, func(kind string) bool { return len(f[kind]) > 0 })
}

// New lists what of a kind was not there before.
func (f Census) New(before Census, kind string) []string { return without(f[kind], before[kind]) }

// Unequal tells in words where two censuses differ in number; empty: nowhere.
func (f Census) Unequal(before Census) string {
	var out strings.Builder
	for _, kind := range kinds {
		if len(f[kind]) == len(before[kind]) {
			continue
		}
		fmt.Fprintf(&out, "%s: %d, were %d\n", kind, len(f[kind]), len(before[kind]))
		for sign, list := range map[string][]string{"+": without(f[kind], before[kind]), "-": without(before[kind], f[kind])} {
			for _, what := range list[:min(len(list), 40)] {
				fmt.Fprintf(&out, "  %s %s\n", sign, what)
			}
		}
	}
	return out.String()
}

// without takes from a list what another has, as often as it has it.
func without(all, others []string) []string {
	left := slices.Clone(all)
	for _, other := range others {
		if i := slices.Index(left, other); i >= 0 {
			left = slices.Delete(left, i, i+1)
		}
	}
	return left
}

// CensusTable is the numbers of several censuses, side by side.
func CensusTable(names []string, all ...Census) string {
	var out strings.Builder
	w := tabwriter.NewWriter(&out, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "\t%s\t\n", strings.Join(names, "\t"))
	for _, kind := range kinds {
		fmt.Fprintf(w, "%s", kind)
		for _, census := range all {
			fmt.Fprintf(w, "\t%d", len(census[kind]))
		}
		fmt.Fprint(w, "\t\n")
	}
	_ = w.Flush() // to memory
	return out.String()
}

// goroutine finds who started one, in what a Go program prints on SIGQUIT.
var goroutine = regexp.MustCompile(`created by (\S+)`)

// AddGoroutines has the plugin print its goroutines, which ends it, counts
// them, and waits until the client has started it again.
func (c *Cluster) AddGoroutines(ctx context.Context, census Census) error {
	var err error
	for range dumpAttempts {
		if err = c.dumpGoroutines(ctx, census); err == nil || ctx.Err() != nil {
			return err
		}
	}
	return err
}

// A client now and then loses what a plugin prints at its very end.
const (
	dumpAttempts = 8
	dumpTimeout  = 10 * time.Second
)

func (c *Cluster) dumpGoroutines(ctx context.Context, census Census) error {
	ctx, cancel := context.WithTimeout(ctx, dumpTimeout)
	defer cancel()
	info, err := os.Stat(c.Node.Log)
	if err != nil {
		return err
	}
	if err := c.endPlugin(ctx, syscall.SIGQUIT); err != nil {
		return err
	}
	// The client writes what the plugin printed a moment later.
	return retry(ctx, 100*time.Millisecond, func() error {
		data, err := os.ReadFile(c.Node.Log)
		if err != nil {
			return err
		}
		printed, after, ended := bytes.Cut(data[info.Size():], []byte("plugin process exited"))
		if !ended || !bytes.Contains(printed, []byte("SIGQUIT: quit")) {
			return errors.New("the plugin's goroutines are not in the client's log yet")
		}
		if !bytes.Contains(after, []byte("using plugin: driver=unikernel")) {
			return errors.New("the client does not use the new plugin yet")
		}
		census[Goroutines] = nil
		for _, match := range goroutine.FindAllSubmatch(printed, -1) {
			if starter := string(match[1]); !strings.HasPrefix(starter, "runtime.") {
				census.add(Goroutines, starter)
			}
		}
		return nil
	})
}
