# The same application in each way of being reached, one instance of each.

variable "image" { type = string }
variable "initrd" { type = string }

# Networks of groups with a container, by name: the group's mode, Docker's own,
# and the port inside (-1: the host's).
variable "containers" {
  type = map(object({ mode = string, docker = string, to = number }))
}

# Modes of groups with a unikernel, by name.
variable "unikernels" { type = map(string) }

job "paths" {
  update {
    min_healthy_time = "1s"
    healthy_deadline = "1m"
  }

  dynamic "group" {
    for_each = var.containers
    labels   = [group.key]

    content {
      network {
        mode = group.value.mode
        port "http" { to = group.value.to }
      }

      service {
        name     = "path-${group.key}"
        port     = "http"
        provider = "nomad"

        check {
          type     = "http"
          path     = "/healthz"
          interval = "10s"
          timeout  = "2s"
        }
      }

      task "steps" {
        driver = "docker"

        config {
          image        = "steps-large:local"
          ports        = group.value.docker == "host" ? [] : ["http"]
          network_mode = group.value.docker
        }

        resources {
          cpu    = 100
          memory = 96
        }
      }
    }
  }

  dynamic "group" {
    for_each = var.unikernels
    labels   = [group.key]

    content {
      network {
        mode = group.value
        port "http" { to = 8080 }
      }

      service {
        name     = "path-${group.key}"
        port     = "http"
        provider = "nomad"

        check {
          type     = "http"
          path     = "/healthz"
          interval = "10s"
          timeout  = "2s"
        }
      }

      task "steps" {
        driver = "unikernel"

        config {
          image  = var.image
          initrd = var.initrd
          guest  = "unikraft"
          ports  = ["http"]
        }

        resources {
          cpu    = 100
          memory = 96
        }
      }
    }
  }
}
