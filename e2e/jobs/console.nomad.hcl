# A unikernel that says what is typed on its console, and starts warm.

variable "images" { type = string }

job "console" {
  group "console" {
    network {
      port "http" { to = 8080 }
    }

    task "steps" {
      driver = "unikernel"

      config {
        image  = "${var.images}/steps-${attr.cpu.arch}"
        initrd = "${var.images}/steps.cpio"
        guest  = "unikraft"
        args   = ["--console-echo"]
        ports  = ["http"]
        warm   = true

        ready {
          port = "http"
        }
      }

      resources {
        cpu    = 100
        memory = 48
      }
    }

    service {
      name     = "console"
      port     = "http"
      provider = "nomad"
    }
  }
}
