job "blocked" {
  meta {
    hybrid_complexity      = "low"
    hybrid_unikernel_image = "local/uk"
  }
  group "g" {
    task "privileged" {
      driver = "docker"
      config {
        image      = "a"
        privileged = true
        command    = "/bin/x"
      }
    }
    task "neutral" {
      driver = "docker"
      config {
        image      = "a"
        privileged = false
        dns_servers = []
        mounts = [{ type = "bind", source = "local/a", target = "/a", readonly = true }]
      }
    }
    task "gpu" {
      driver = "docker"
      config { image = "a" }
      resources {
        device "nvidia/gpu" {}
      }
    }
    task "checked" {
      driver = "docker"
      config { image = "a" }
      service {
        name = "x"
        check {
          type     = "script"
          name     = "alive"
          command  = "/bin/true"
          interval = "10s"
          timeout  = "1s"
        }
      }
    }
    task "medium" {
      driver = "docker"
      config { image = "a" }
      meta { hybrid_complexity = "medium" }
    }
    task "placed" {
      driver = "docker"
      config { image = "a" }
      affinity {
        attribute = "${attr.driver.unikernel.kvm}"
        value     = "true"
        weight    = 100
      }
    }
    task "right-sized" {
      driver = "docker"
      config {
        image = "a"
      }
      meta {
        hybrid_unikernel_memory = "16MiB"
        hybrid_unikernel_arch   = "x86_64"
      }
    }
  }
}
