# A Nomad client on a small board, for /etc/nomad.d/ where there is none yet.

data_dir = "/opt/nomad/data"

client {
  enabled  = true
  servers  = ["nomad.example"] # your servers
  cni_path = "/usr/lib/cni"    # Debian's; /opt/cni/bin where they were unpacked by hand

  # Where `nomad node status` shows 0 MHz, the board does not tell its frequency.
  # Cores times MHz:
  # cpu_total_compute = 6000

  # What the system itself needs is not given to tasks. MHz and MiB.
  reserved {
    cpu    = 500
    memory = 512
  }
}
