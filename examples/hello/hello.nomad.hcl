# The smallest job for the unikernel driver: boot, print, return 0.

variable "images" {
  type        = string
  description = "Host folder that holds the unikernel images, one of the driver's image_paths."
  default     = "/opt/unikernels"
}

job "hello" {
  type = "batch"

  group "hello" {
    task "hello" {
      driver = "unikernel"

      config {
        image = "${var.images}/steps-${attr.cpu.arch}"
        guest = "unikraft"
        args  = ["--exit=0"] # what its main returns
      }

      resources {
        cpu    = 100
        memory = 48 # the guest's RAM and QEMU's own share
      }
    }
  }
}
