job "both" {
  type = "system"
  group "light" {
	task "tabs" {
		driver = "hybrid" # decide
		config {
			# the same application twice
			container {
				image = "acme/app:1" # the container
				labels {
					a = "b"
				}
			}
			unikernel {
				image = "acme/app-uk:1" # the unikernel
				arch  = "arm64"
			}
		}
		meta { hybrid_complexity = "low" }
	}
  }

  group "heavy" {
    task "heavy" {
      driver = "hybrid"
      config {
        container {
          image = "acme/vision:1"
          mount {
            type   = "tmpfs"
            target = "/x"
          }
        }
        unikernel { image = "acme/vision-uk:1" }
      }
      meta {
        hybrid_complexity = "95"
      }
    }

    task "unsure" {
      driver = "hybrid"
      config {
        container {
          image = "a"
        }
        unikernel {
          image = "b"
        }
      }
    }

    task "back" {
      driver = "unikernel"
      config {
        image       = "local/uk"
        guest       = "mirage"
        kernel_args = ["x"]
        args        = ["--port", "${NOMAD_PORT_http}"]
        mount {
          source = "local/conf"
          target = "/conf"
        }
      }
      meta {
        hybrid_runtime         = "container"
        hybrid_container_image = "acme/back:${attr.cpu.arch}"
      }
    }
  }
}
