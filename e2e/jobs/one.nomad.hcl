# One unikernel, started once. Each test changes what it is about.

variable "image" { type = string }

variable "initrd" {
  type    = string
  default = ""
}

variable "guest" {
  type    = string
  default = "unikraft"
}

variable "guest_version" {
  type    = string
  default = ""
}

variable "network_mode" {
  type    = string
  default = ""
}

variable "arch" {
  type    = string
  default = ""
}

variable "machine" {
  type    = string
  default = ""
}

variable "accelerator" {
  type    = string
  default = "auto"
}

variable "ports" {
  type    = list(string)
  default = []
}

variable "args" {
  type    = list(string)
  default = ["--exit=0"]
}

variable "memory" {
  type    = number
  default = 48
}

job "one" {
  type = "batch"

  group "one" {
    network {
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

    task "one" {
      driver = "unikernel"

      config {
        image         = var.image
        initrd        = var.initrd
        guest         = var.guest
        guest_version = var.guest_version
        arch          = var.arch
        accelerator   = var.accelerator
        ports         = var.ports
        network_mode  = var.network_mode
        args          = var.args

        machine {
          type = var.machine
        }
      }

      resources {
        cpu    = 50
        memory = var.memory
      }
    }
  }
}
