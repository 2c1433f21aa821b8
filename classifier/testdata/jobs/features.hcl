/* Every feature of the language that a job may use, in one file. */
variables {
  image = "acme/edge"
}

variable "sites" {
  type    = list(string)
  default = ["north", "south"]
  validation {
    condition     = length(var.sites) > 0
    error_message = "Give at least one site."
  }
}

variable "memory" { default = 96 }

locals {
  tag  = "1.${length(var.sites)}"
  meta = { hybrid_workload = "iot-gateway" }
  cfg  = <<-EOT
    line one
      line "two" ${upper("x")}
    EOT
}

job "features" {
  datacenters = ["dc${1 + 0}", "*"]
  meta = merge(local.meta, { owner = "edge # not a comment" })

  // one group for each site
  dynamic "group" {
    for_each = var.sites
    labels   = ["gw-${group.value}"]

    content {
      count = 2

      network {
        port "mqtt" { to = 1883 }
      }

      task "gateway" {
        driver = "docker"

        config {
          image   = "${var.image}:${local.tag}"   # trailing
          ports   = ["mqtt"]
          args    = ["--site", group.value]
          cap_drop = ["ALL"]
        }

        template {
          data        = local.cfg
          destination = "local/conf"
        }

        template {
          data = <<EOF
driver = "docker"
config { image = "not this one" }
{{ range services }}{{ .Name }}{{ end }}
EOF
          destination = "local/${group.value}"
        }

        meta {
          hybrid_complexity      = "low"
          hybrid_unikernel_image = "local/gw-${group.value}"
          hybrid_unikernel_args  = "--site '${group.value}' --log \"a b\""
        }

        resources {
          cpu    = 100
          memory = var.memory
        }
      }
    }
  }

  group "mixed" {
    # a task that no hint concerns but the job's
    task "plain" {
      driver = "docker"
      config { image = "redis:7" }
      resources { memory = 64 }
    }

    dynamic "task" {
      for_each = { a = 1, b = 4000 }
      labels   = [task.key]
      content {
        driver = "docker"
        config {
          image = "x:${task.key}"
        }
        meta = {
          "hybrid_complexity"      = "50"
          "hybrid_unikernel_image" = "local/x"
        }
        resources {
          cpu = task.value
        }
      }
    }

    task "host" {
      driver = "raw_exec"
      config {
        command = "/bin/true"
      }
    }
  }
}
