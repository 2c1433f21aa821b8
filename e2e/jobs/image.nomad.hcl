# Unikernels from a registry. What the job leaves out, the image tells: the
# guest's family, its arguments, its initrd. Its arguments say port 8081.

variable "image" { type = string }

variable "initrd" {
  type    = string
  default = ""
}

variable "guest" {
  type    = string
  default = "auto"
}

variable "arch" {
  type    = string
  default = ""
}

variable "args" {
  type    = list(string)
  default = null
}

variable "count" {
  type    = number
  default = 1
}

job "image" {
  update {
    min_healthy_time = "0s"
    healthy_deadline = "2m"
  }

  group "image" {
    count = var.count

    network {
      port "http" { to = 8081 }
    }

    service {
      name     = "image"
      port     = "http"
      provider = "nomad"

      check {
        type     = "http"
        path     = "/healthz"
        interval = "1s"
        timeout  = "1s"
      }
    }

    restart {
      attempts = 0
      mode     = "fail"
    }

    reschedule {
      attempts  = 0
      unlimited = false
    }

    task "image" {
      driver = "unikernel"

      config {
        image  = var.image
        initrd = var.initrd
        guest  = var.guest
        arch   = var.arch
        args   = var.args
        ports  = ["http"]
      }

      env {
        GIVEN_BY = "the job"
      }

      resources {
        cpu    = 50
        memory = 48
      }
    }
  }
}
