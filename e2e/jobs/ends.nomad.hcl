# One unikernel that ends in the way that a test is about.

variable "image" { type = string }

variable "guest" {
  type    = string
  default = "unikraft"
}

variable "cpu_model" {
  type    = string
  default = ""
}

variable "args" {
  type    = list(string)
  default = []
}

variable "ready" {
  type    = string
  default = ""
}

variable "memory" {
  type    = number
  default = 48
}

variable "restarts" {
  type    = number
  default = 0
}

job "ends" {
  type = "batch"

  group "ends" {
    restart {
      attempts = var.restarts
      delay    = "0s"
      mode     = "fail"
    }

    reschedule {
      attempts  = 0
      unlimited = false
    }

    task "ends" {
      driver = "unikernel"

      config {
        image       = var.image
        guest       = var.guest
        args        = var.args
        accelerator = "tcg"

        machine {
          cpu = var.cpu_model
        }

        ready {
          pattern = var.ready
          timeout = "2s"
        }
      }

      resources {
        cpu    = 50
        memory = var.memory
      }
    }
  }
}
