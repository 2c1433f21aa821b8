# One job of an edge site: a heavy application and a light one.
#
# It is an ordinary Nomad job, and `nomad job run` runs both as containers. The
# hybrid_… hints are meta keys: nomad-hybrid reads them, leaves vision a
# container, makes steps a unikernel, and says why.

variable "images" {
  type        = string
  description = "Host folder that holds the unikernel images, one of the driver's image_paths."
  default     = "/opt/unikernels"
}

job "hybrid" {
  # An instance counts as healthy once its check passes.
  update {
    min_healthy_time = "1s"
    healthy_deadline = "3m"
  }

  # Finds faces in photographs.
  group "vision" {
    network {
      port "http" { to = 8080 }
    }

    service {
      name     = "vision"
      port     = "http"
      provider = "nomad"

      check {
        type     = "http"
        path     = "/healthz"
        interval = "5s"
        timeout  = "2s"
      }
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
        memory = 128
      }
    }
  }

  # Averages the daily steps of each user of a data set.
  group "steps" {
    count = 3

    network {
      port "http" { to = 8080 }
    }

    service {
      name     = "steps"
      port     = "http"
      provider = "nomad"

      check {
        type     = "http"
        path     = "/healthz"
        interval = "5s"
        timeout  = "2s"
      }
    }

    task "steps" {
      driver = "docker"

      config {
        image = "steps:local"
        ports = ["http"]
      }

      meta {
        hybrid_workload   = "data-science"
        hybrid_complexity = "low"

        # What it is as a unikernel. The node fills in its architecture.
        hybrid_unikernel_image  = "${var.images}/steps-${attr.cpu.arch}"
        hybrid_unikernel_initrd = "${var.images}/steps.cpio"
        hybrid_unikernel_guest  = "unikraft"
        hybrid_unikernel_memory = "48"
      }

      resources {
        cpu    = 100
        memory = 32
      }
    }
  }
}
