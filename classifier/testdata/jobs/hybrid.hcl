# The hybrid job: one container, three unikernels.
job "hybrid" {
  group "vision" {
    network {
      port "http" { to = 8080 }
    }
    task "vision" {
      driver = "docker"
      config {
        image = "vision:local"
        ports = ["http"]
      }
      meta {
        hybrid_workload   = "computer-vision"
        hybrid_complexity = "high"
      }
      resources {
        cpu    = 500
        memory = 256
      }
    }
  }
  group "steps" {
    count = 3
    network {
      port "http" { to = 8080 }
    }
    task "steps" {
      driver = "docker"
      config {
        image = "steps:local" # the same code as a container
        ports = ["http"]
        args  = ["--verbose"]
      }
      artifact {
        source = "http://example.com/steps.tar.gz"
      }
      meta {
        hybrid_workload         = "data-science"
        hybrid_complexity       = "low"
        hybrid_unikernel_image  = "local/steps-${attr.cpu.arch}"
        hybrid_unikernel_guest  = "unikraft"
        hybrid_unikernel_initrd = "local/data.cpio"
      }
      resources {
        cpu    = 100
        memory = 64
      }
    }
  }
}
