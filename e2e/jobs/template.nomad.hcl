# A unikernel whose data is a template of a Nomad variable.

variable "image" { type = string }

variable "change_mode" { type = string }

variable "change_signal" {
  type    = string
  default = ""
}

job "template" {
  update {
    min_healthy_time = "0s"
    healthy_deadline = "1m"
  }

  group "template" {
    network {
      port "http" { to = 8080 }
    }

    service {
      name     = "template"
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

    task "template" {
      driver = "unikernel"

      config {
        image = var.image
        guest = "unikraft"
        ports = ["http"]

        mount {
          source = "local/steps.csv"
          target = "/steps.csv"
        }
      }

      template {
        data          = "{{ with nomadVar \"nomad/jobs/template\" }}{{ .csv }}{{ end }}"
        destination   = "local/steps.csv"
        change_mode   = var.change_mode
        change_signal = var.change_signal
        splay         = "0s"
      }

      resources {
        cpu    = 50
        memory = 48
      }
    }
  }
}
