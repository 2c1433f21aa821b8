# A guest with all that a job can give it: templates, an artifact, secrets,
# folders, disks and volumes. Its image is a Linux that shows what it finds
# under the folders that its arguments name.

variable "kernel" { type = string }

variable "initrd" { type = string }

variable "server" { type = string } # what artifacts are fetched from

job "content" {
  type = "batch"

  group "content" {
    volume "data" {
      type   = "host"
      source = "data"
    }

    volume "lists" {
      type      = "host"
      source    = "lists"
      read_only = true
    }

    restart {
      attempts = 0
      mode     = "fail"
    }

    reschedule {
      attempts  = 0
      unlimited = false
    }

    task "content" {
      driver = "unikernel"

      config {
        image  = var.kernel
        initrd = var.initrd
        guest  = "linux"
        args   = ["/conf", "/secrets", "/fetched", "/live", "/data", "/lists"]

        mount {
          source = "local/conf"
          target = "/conf"
        }
        mount {
          source = "secrets/tokens"
          target = "/secrets"
        }
        mount {
          source = "local/fetched"
          target = "/fetched"
        }
        mount {
          source    = "local/conf"
          target    = "/live"
          transport = "9p"
        }
        mount {
          source    = "local/disks/raw"
          target    = "/plain"
          transport = "block"
          readonly  = false
        }
        mount {
          source    = "local/disks/qcow2"
          target    = "/packed"
          transport = "block"
          format    = "qcow2"
        }
      }

      env {
        GIVEN_BY = "the job"
      }

      template {
        data        = "hello from {{ env \"NOMAD_TASK_NAME\" }}"
        destination = "local/conf/greeting"
      }

      template {
        data        = "the secret"
        destination = "secrets/tokens/token"
        perms       = "0600"
      }

      artifact {
        source      = "${var.server}/fetched"
        destination = "local/fetched"
      }

      artifact {
        source      = "${var.server}/raw"
        destination = "local/disks"
      }

      artifact {
        source      = "${var.server}/qcow2"
        destination = "local/disks"
      }

      volume_mount {
        volume      = "data"
        destination = "/data"
      }

      volume_mount {
        volume      = "lists"
        destination = "/lists"
        read_only   = true
      }

      resources {
        cpu    = 100
        memory = 288
      }
    }
  }
}
