// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"time"

	"github.com/hashicorp/nomad/api"
)

const (
	serviceName = "bench-steps"
	taskName    = "steps"
	portLabel   = "http"

	containerImage = "steps:local"
)

// taskMaker makes a contender's task.
type taskMaker func() *api.Task

// jobOf runs a task n times. A port other than 0 is the host's, else Nomad
// chooses; the guest listens on its own.
func jobOf(id string, task *api.Task, n, port int) *api.Job {
	network := &api.NetworkResource{}
	at := api.Port{Label: portLabel, Value: port, To: 8080}
	if port != 0 {
		network.ReservedPorts = []api.Port{at}
	} else {
		network.DynamicPorts = []api.Port{at}
	}
	never := 0
	group := api.NewTaskGroup("steps", n).AddTask(task)
	group.Networks = []*api.NetworkResource{network}
	group.Services = []*api.Service{{Name: serviceName, PortLabel: portLabel, Provider: "nomad"}}
	group.RestartPolicy = &api.RestartPolicy{Attempts: &never, Mode: ptr("fail")} // a loss is to be seen
	group.ReschedulePolicy = &api.ReschedulePolicy{Attempts: &never, Unlimited: ptr(false)}
	job := api.NewServiceJob(id, id, "global", 50).AddTaskGroup(group)
	job.Update = &api.UpdateStrategy{MinHealthyTime: ptr(time.Second)}
	job.Canonicalize()
	return job
}

func task(driver string, memoryMiB int, config map[string]any) *api.Task {
	t := api.NewTask(taskName, driver)
	t.Config = config
	t.Require(&api.Resources{CPU: ptr(100), MemoryMB: ptr(memoryMiB)})
	return t
}

func (b *bench) containerTask() *api.Task {
	return task("docker", 32, map[string]any{"image": containerImage, "ports": []string{portLabel}})
}

func (b *bench) unikernelTask() *api.Task {
	return task("unikernel", guestMiB+b.report.overheadMiB, map[string]any{
		"image":  b.platform.kernel,
		"initrd": b.platform.initrd,
		"guest":  "unikraft",
		"ports":  []string{portLabel},
	})
}

// warmTask goes on from a guest that the first round has saved.
func (b *bench) warmTask() *api.Task {
	t := b.unikernelTask()
	t.Config["warm"] = true
	t.Config["ready"] = []map[string]any{{"port": portLabel}}
	return t
}

// qemuTask runs the guest as a user of Nomad's qemu driver must: it takes an
// image and calls it a disk, and all else goes through args. It wants 128 MiB
// at least.
func (b *bench) qemuTask() *api.Task {
	return task("qemu", 128, map[string]any{
		"image_path":      b.platform.kernel,
		"drive_interface": b.platform.drive,
		"emulator":        b.platform.tasks,
		"machine_type":    b.platform.machine,
		"accelerator":     b.report.Machine.accelerator,
		"args":            b.platform.bootArgs("${NOMAD_HOST_PORT_" + portLabel + "}"),
	})
}

func ptr[T any](v T) *T { return &v }
