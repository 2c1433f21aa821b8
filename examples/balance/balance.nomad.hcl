# nginx in a container, and behind it as many unikernels as are asked for. Nomad
# tells nginx where they are.
#
#   nomad job run -var images=/opt/unikernels balance.nomad.hcl
#   nomad job scale balance steps 6
#   nomad job run -var images=/opt/unikernels -var count=6 -var release=2 balance.nomad.hcl
#   nomad deployment promote ID

variable "images" {
  type        = string
  description = "Host folder that holds the unikernel images, one of the driver's image_paths."
  default     = "/opt/unikernels"
}

variable "count" {
  type        = number
  description = "How many unikernels."
  default     = 2
}

variable "release" {
  type        = string
  description = "What the unikernels are told they are. Another one is a rolling update."
  default     = "1"
}

variable "port" {
  type        = number
  description = "The host's port that nginx listens on; 0: Nomad chooses one."
  default     = 8080
}

job "balance" {
  group "balancer" {
    network {
      port "http" { static = var.port }
    }

    service {
      name     = "balance"
      port     = "http"
      provider = "nomad"

      check {
        type     = "http"
        path     = "/balancer"
        interval = "2s"
        timeout  = "1s"
      }
    }

    task "nginx" {
      driver = "docker"

      config {
        image = "nginx:local"
        args  = ["-c", "/local/nginx.conf"]

        # It reaches the unikernels at the addresses that service discovery
        # gives, which are the nodes'.
        network_mode = "host"
      }

      # The last requests are answered before it ends.
      kill_signal = "SIGQUIT"

      template {
        destination = "local/nginx.conf"

        # nginx takes new connections by the new configuration and finishes the
        # old ones by the old. A script that finds no nginx yet does no harm,
        # while a signal (change_mode = "signal") that comes between the first
        # rendering and nginx's start makes Nomad fail the task.
        change_mode = "script"
        splay       = "0s"

        change_script {
          command = "/usr/sbin/nginx"
          args    = ["-e", "stderr", "-c", "/local/nginx.conf", "-s", "reload"]
        }

        # Without this, Nomad waits for 5 quiet seconds, and shutdown_delay below
        # would have to be longer.
        wait {
          min = "200ms"
          max = "1s"
        }

        data = <<-EOT
          daemon off;
          worker_processes 1;
          pid /tmp/nginx.pid;
          error_log stderr warn;

          events {
            worker_connections 1024;
          }

          http {
            access_log off;
            client_body_temp_path /tmp/body;
            proxy_temp_path /tmp/proxy;
            fastcgi_temp_path /tmp/fastcgi;
            uwsgi_temp_path /tmp/uwsgi;
            scgi_temp_path /tmp/scgi;

            upstream steps {
              {{- range nomadService "steps" }}
              server {{ .Address }}:{{ .Port }};
              {{- else }}
              server 127.0.0.1:1 down; # nobody yet
              {{- end }}
            }

            server {
              listen {{ env "NOMAD_PORT_http" }};

              location = /balancer {
                return 200 "ok\n";
              }

              location / {
                proxy_pass http://steps;
                proxy_http_version 1.1;
                proxy_set_header Connection "";

                # An instance that crashed answers nothing: another is asked.
                proxy_connect_timeout 1s;
                proxy_next_upstream error timeout;

                # Whom it asked; more than one where it had to ask again.
                add_header X-Upstream $upstream_addr always;
              }
            }
          }
        EOT
      }

      resources {
        cpu    = 100
        memory = 32
      }
    }
  }

  group "steps" {
    count = var.count

    # One of the new release first, beside the old ones. Once it is promoted, the
    # others follow, some at a time.
    update {
      canary           = 1
      max_parallel     = 3
      min_healthy_time = "1s"
      healthy_deadline = "2m"
    }

    # A tap: as many connections as the guest takes. User-mode networking (mode
    # "host") queues one connection at a time, and keeps each for some seconds
    # after its end.
    network {
      mode = "bridge"
      port "http" { to = 8080 }
    }

    task "steps" {
      driver = "unikernel"

      # A unikernel ends at once. First it leaves service discovery, and for this
      # long it answers what nginx still sends: until nginx has read its new
      # configuration and has the last answer.
      shutdown_delay = "3s"

      # A task's service is registered once the task has started, a group's
      # before. With `ready`, started means that it listens.
      service {
        name     = "steps"
        port     = "http"
        provider = "nomad"

        check {
          type     = "http"
          path     = "/healthz"
          interval = "2s"
          timeout  = "1s"
        }
      }

      config {
        image  = "${var.images}/steps-${attr.cpu.arch}"
        initrd = "${var.images}/steps.cpio"
        guest  = "unikraft"
        ports  = ["http"]

        ready {
          port = "http"
        }
      }

      env {
        RELEASE = var.release
      }

      resources {
        cpu    = 100
        memory = 48
      }
    }
  }
}
