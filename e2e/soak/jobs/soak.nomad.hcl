# One unikernel, started once: Nomad does not try again, so that each end shows.

variable "image" { type = string }
variable "initrd" { type = string }

variable "mode" {
  type    = string
  default = "host"
}

variable "count" {
  type    = number
  default = 1
}

variable "args" {
  type    = list(string)
  default = []
}

variable "machine" {
  type    = string
  default = ""
}

job "soak" {
  type = "batch"

  group "soak" {
    count = var.count

    network {
      mode = var.mode
      port "http" { to = 8080 }
    }

    restart {
      attempts = 0
      mode     = "fail"
    }

    reschedule {
      attempts  = 0
      unlimited = false
    }

    task "soak" {
      driver = "unikernel"

      config {
        image  = var.image
        initrd = var.initrd
        guest  = "unikraft"
        args   = var.args
        ports  = ["http"]

        machine {
          type = var.machine
        }
      }

      resources {
        cpu    = 20
        memory = 40
      }
    }
  }
}
