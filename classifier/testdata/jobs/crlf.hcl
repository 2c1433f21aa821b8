job "crlf" {
  group "g" {
    task "t" {
      driver = "docker"
      config {
        image = "a"
      }
      meta {
        hybrid_complexity = "0"
        hybrid_unikernel_image = "b"
      }
    }
  }
  task "alone" {
    driver = "docker"
    config { image = "c" }
  }
}
