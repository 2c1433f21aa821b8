# The steps unikernel as the board's tests run it.

variable "image" {
  type    = string
  default = "/opt/unikernels/steps-arm64"
}

variable "mode" {
  type    = string
  default = "host"
}

variable "to" {
  type    = number
  default = 0
}

variable "args" {
  type    = list(string)
  default = []
}

variable "memory" {
  type    = number
  default = 64
}

variable "gic" {
  type    = string
  default = ""
}

variable "accelerator" {
  type    = string
  default = "auto"
}

job "steps" {
  group "steps" {
    network {
      mode = var.mode
      port "http" {
        to = var.to
      }
    }

    # An end is an end: the tests look at it.
    restart {
      attempts = 0
      mode     = "fail"
    }
    reschedule {
      attempts  = 0
      unlimited = false
    }
    disconnect {
      lost_after = "10m" # a busy machine emulates this one slowly
    }

    service {
      name     = "steps"
      port     = "http"
      provider = "nomad"
      check {
        type     = "http"
        path     = "/healthz"
        interval = "5s"
        timeout  = "10s"
      }
    }

    task "steps" {
      driver = "unikernel"
      config {
        image       = var.image
        initrd      = "/opt/unikernels/steps.cpio"
        guest       = "unikraft"
        args        = var.args
        ports       = ["http"]
        accelerator = var.accelerator
        machine {
          gic = var.gic
        }
      }
      resources {
        cpu    = 100
        memory = var.memory
      }
    }
  }
}
