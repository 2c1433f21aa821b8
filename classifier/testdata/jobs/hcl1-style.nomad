# A job as people wrote them before HCL2: what of that style Nomad still reads.
job "old" {
    datacenters = ["dc1"]
    type = "service"
    update {
        stagger = "10s"
        max_parallel = 1
    }
    group "cache" {
        count = 1
        restart {
            # The number of attempts to run the job within the specified interval.
            attempts = 10
            interval = "5m"
        }
        task "redis" {
            driver = "docker"
            config {
                image = "redis:3.2"
                port_map {
                    db = 6379
                }
            }
            resources {
                cpu    = 500 # 500 MHz
                memory = 256 # 256MB
                network {
                    mbits = 10
                    port "db" {}
                }
            }
            service {
                name = "redis-cache"
                tags = ["global", "cache"]
                port = "db"
            }
            meta {
            hybrid_complexity = "low"
                   hybrid_unikernel_image = "local/redis"
            }
        }
        task "sensor" {
            driver = "docker"
            config { image = "sensor" }
            env { LOG = "info" }
            meta {
                hybrid_complexity = "low"
                hybrid_unikernel_image = "local/sensor"
            }
            resources {
                cpu = 50
                memory = 48
            }
        }
    }
}
