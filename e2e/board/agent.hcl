# A server and client in one, on the emulated board.

data_dir             = "/opt/nomad/data"
bind_addr            = "0.0.0.0"
disable_update_check = true

advertise {
  http = "192.168.76.2"
  rpc  = "192.168.76.2"
  serf = "192.168.76.2"
}

server {
  enabled          = true
  bootstrap_expect = 1
  raft_multiplier  = 1
}

client {
  enabled           = true
  network_interface = "eth0"
  cni_path          = "/usr/lib/cni"
  cpu_total_compute = 2000 # the board tells no frequency

  options = {
    # The board has no network to ask, and its docker has images of its own.
    "fingerprint.denylist" = "env_aws,env_gce,env_azure,env_digitalocean,consul,vault"
    "driver.allowlist"     = "docker,unikernel"
  }
}

plugin "docker" {
  config {
    gc {
      image = false # built here, to be pulled from nowhere
    }
  }
}
