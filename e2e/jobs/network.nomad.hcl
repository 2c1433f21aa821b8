# The steps unikernel as a service, in each network mode and advertised in each
# address mode. Each test changes what it is about.

variable "image" { type = string }
variable "initrd" { type = string }

variable "guest" {
  type    = string
  default = "unikraft"
}

variable "guest_version" {
  type    = string
  default = ""
}

variable "args" {
  type    = list(string)
  default = []
}

# The guest asks for its address.
variable "dhcp" {
  type    = bool
  default = false
}

variable "mode" {
  type    = string
  default = "host"
}

# DNS servers of the group: none, or a list of them.
variable "dns" {
  type    = list(string)
  default = []
}

variable "count" {
  type    = number
  default = 1
}

# -1: the guest listens on the port that the host does.
variable "to" {
  type    = number
  default = 8080
}

# 0: Nomad chooses one.
variable "static" {
  type    = number
  default = 0
}

variable "provider" {
  type    = string
  default = "nomad"
}

# A service steps-MODE for each.
variable "address_modes" {
  type    = list(string)
  default = ["auto"]
}

# Images of another unikernel in the same group: none, or one; and its port.
variable "partners" {
  type    = list(string)
  default = []
}

variable "partner_to" {
  type    = number
  default = 8081
}

# Images of a proxy in the same group: none, or one.
variable "sidecars" {
  type    = list(string)
  default = []
}

job "network" {
  group "steps" {
    count = var.count

    network {
      mode = var.mode

      port "http" {
        static = var.static
        to     = var.to
      }

      port "echo" { to = var.to == -1 ? -1 : 9007 }
      port "proxy" { to = 9090 }
      port "partner" { to = var.partner_to }

      dynamic "dns" {
        for_each = length(var.dns) > 0 ? [var.dns] : []

        content {
          servers = dns.value
        }
      }
    }

    update {
      max_parallel      = 2
      min_healthy_time  = "0s"
      healthy_deadline  = "50s"
      progress_deadline = "60s"
    }

    restart {
      attempts = 0
      mode     = "fail"
    }

    reschedule {
      attempts  = 0
      unlimited = false
    }

    # A group's service can be advertised at the allocation's address, only a
    # task's at the driver's.
    dynamic "service" {
      for_each = [for mode in var.address_modes : mode if mode != "driver"]

      content {
        name         = "steps-${service.value}"
        provider     = var.provider
        port         = "http"
        address_mode = service.value
        tags         = ["edge", "steps"]

        check {
          type     = "http"
          path     = "/healthz"
          interval = "1s"
          timeout  = "1s"
        }
      }
    }

    task "steps" {
      driver = "unikernel"

      # It finds its ports in NOMAD_PORT_http and NOMAD_PORT_echo.
      config {
        image         = var.image
        initrd        = var.initrd
        guest         = var.guest
        guest_version = var.guest_version
        args          = var.args
        dhcp          = var.dhcp
        ports         = ["http", "echo"]
      }

      dynamic "service" {
        for_each = [for mode in var.address_modes : mode if mode == "driver"]

        content {
          name         = "steps-${service.value}"
          provider     = var.provider
          port         = "http"
          address_mode = service.value
          tags         = ["edge", "steps"]

          check {
            type     = "http"
            path     = "/healthz"
            interval = "1s"
            timeout  = "1s"
          }
        }
      }

      resources {
        cpu    = 50
        memory = 64
      }
    }

    dynamic "task" {
      for_each = var.partners
      labels   = ["partner"]

      content {
        driver = "unikernel"

        lifecycle {
          hook    = "poststart"
          sidecar = true
        }

        config {
          image  = task.value
          initrd = var.initrd
          guest  = "unikraft"
          args   = ["--port=${var.partner_to}"]
          ports  = ["partner"]
        }

        resources {
          cpu    = 50
          memory = 64
        }
      }
    }

    dynamic "task" {
      for_each = var.sidecars
      labels   = ["proxy"]

      content {
        driver = "docker"

        config {
          image = task.value
          args  = [":9090", "http://127.0.0.1:8080"]
        }

        resources {
          cpu    = 20
          memory = 32
        }
      }
    }
  }
}
