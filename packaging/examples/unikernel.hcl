# Loads the unikernel driver. Copy it to /etc/nomad.d/ and restart Nomad.

plugin "nomad-driver-unikernel" {
  config {
    image_paths = ["/opt/unikernels"] # where jobs may name images by path
    emulation   = false               # a node without KVM says so, instead of being slow

    logs {
      collector = "driver" # spares a process of 20 MiB for each task: docs/logs.md
    }
  }
}

# Nomad 1.11 asks drivers for what tasks use only where it publishes it.
telemetry {
  publish_allocation_metrics = true
}
