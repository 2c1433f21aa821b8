# The policy by which nomad-hybrid decides between container and unikernel.
# This is the one that holds where -policy is not given. Copy it, change it,
# and pass it with -policy FILE.
#
# Each signal that is known about a task has a score from 0 (light: belongs in
# a unikernel) to 100 (heavy: belongs in a container). The task's score is
# their mean, weighted by the weights below. Signals marked + are burdens: each
# counts only where it raises the score, so that to find one more never moves a
# task toward the unikernel. docs/hybrid.md lists all signals.

name = "default" # recorded in the job's meta, with a hash of all that is below

thresholds {
  unikernel = 40 # a score at or below this: unikernel
  container = 60 # a score at or above this: container
  # Between them a task keeps what was decided for it before, so that a small
  # change does not flip it. Without an earlier decision: container, undecided.

  # Signals that tell of the application (no burdens, nothing of the cluster)
  # must weigh this much together, else the task is undecided.
  evidence = 25
}

# How much each signal counts, against the others. 0, or a signal that is left
# out, switches it off.
weights {
  # The author's hints.
  complexity = 60 # hybrid_complexity
  workload   = 40 # hybrid_workload

  # The job.
  cpu          = 15 #   resources.cpu, MHz
  cores        = 25 #   resources.cores
  memory       = 20 #   resources.memory (or memory_max), MiB
  count        = 5  #   instances of the group, where more than one
  type         = 10 # + system jobs: one on every node
  devices      = 30 # + devices of the host
  lifecycle    = 10 # + a hook beside other tasks
  templates    = 4  # + how many
  artifacts    = 4  # + how many
  volumes      = 10 # + folders and volumes that are mounted
  checks       = 10 # + script checks
  connect      = 10 # + Consul Connect
  network      = 10 # + the host's network
  capabilities = 20 # + cap_add
  privileged   = 30 # + privileged
  command      = 10 # + a shell or another program in the image's stead
  user         = 10 # + a user of the task's

  # The container image.
  contents    = 30 # + kind of work told by libraries
  runtime     = 20 #   what the entry point is: Go binary, shell, JVM, …
  processes   = 30 # + a manager of several processes
  forks       = 10 # + the entry point is linked with fork, exec or the like
  image_size  = 10 #   MiB of its files
  layers      = 2  # + how many
  shell       = 3  # + there is one
  packages    = 3  # + there is a package manager
  image_user  = 2  # + it names a user
  ports       = 5  # + how many it exposes
  stop_signal = 3  # + it wants one of its own

  # The unikernel image.
  unikernel_arch   = 10 # + not for all architectures of the container image
  unikernel_memory = 10 # + the least it boots in is much of what it gets
  unikernel_lacks  = 20 # + it cannot take what the job gives: environment, files

  # The live cluster (-cluster).
  peak       = 25 #   most memory used by the running job, MiB
  peak_cpu   = 15 #   most CPU used by the running job, MHz
  nodes      = 10 # + nodes that could take it as a container only
  emulated   = 15 # + nodes without KVM
  free       = 5  #   memory that is free on the nodes
  neighbours = 3  #   what runs there: the part that are unikernels
}

# What the words of hybrid_complexity mean. A number is taken as it is.
complexity {
  low    = 10
  medium = 50
  high   = 90
}

memory {
  # A just-in-time compiler (JVM, Node.js, …) with less memory than this stays
  # a container: such runtimes collapse below a threshold in a unikernel while
  # a container only slows down (arXiv 2509.07891). MiB; 0: no such rule.
  jit_floor = 256
}

# From a figure to a score: [figure, score] points, straight lines between.
scale "cpu" {
  points = [[100, 5], [500, 30], [1000, 55], [2000, 80], [4000, 100]]
}

scale "cores" {
  points = [[1, 50], [2, 80], [4, 100]]
}

scale "memory" {
  points = [[32, 0], [128, 20], [256, 40], [512, 60], [1024, 80], [4096, 100]]
}

# Many instances gain most from small ones.
scale "count" {
  points = [[2, 45], [10, 10]]
}

scale "image_size" {
  points = [[10, 5], [100, 30], [500, 60], [2000, 95]]
}

scale "layers" {
  points = [[5, 10], [30, 60]]
}

scale "templates" {
  points = [[1, 25], [5, 60]]
}

scale "artifacts" {
  points = [[1, 25], [5, 50]]
}

scale "ports" {
  points = [[1, 10], [3, 50], [10, 80]]
}

scale "peak" {
  points = [[16, 0], [128, 30], [512, 65], [2048, 100]]
}

scale "peak_cpu" {
  points = [[50, 5], [500, 35], [1000, 60], [4000, 100]]
}

# Percent, from here on.
scale "unikernel_arch" {
  points = [[0, 30], [100, 90]]
}

scale "unikernel_memory" {
  points = [[50, 10], [100, 80]]
}

scale "nodes" {
  points = [[0, 20], [100, 100]]
}

scale "emulated" {
  points = [[0, 30], [100, 80]]
}

# Where memory is scarce, the smaller of the two serves better.
scale "free" {
  points = [[10, 10], [50, 50]]
}

# A site that runs unikernels knows how to.
scale "neighbours" {
  points = [[0, 50], [100, 35]]
}

# Scores of what is no figure. What is not listed does not count.
scores "type" {
  system   = 70
  sysbatch = 60
}

scores "network" {
  host = 65
  cni  = 40
}

scores "command" {
  shell   = 85
  program = 50
}

scores "runtime" {
  static  = 10
  rust    = 10
  go      = 15
  dynamic = 35
  php     = 60
  python  = 65
  ruby    = 70
  node    = 75
  shell   = 80
  jvm     = 90
  dotnet  = 90
}

# Signals that are there or not.
scores "found" {
  devices         = 100
  lifecycle       = 70
  volumes         = 65
  checks          = 90
  connect         = 60
  capabilities    = 90
  privileged      = 100
  user            = 70
  processes       = 100
  forks           = 75 # it may never call them
  shell           = 55
  packages        = 60
  image_user      = 50
  stop_signal     = 50
  unikernel_lacks = 90
}

# Kinds of work. `finds` are libraries and packages that tell the kind when
# they are found in a container image (names in lower case, without version;
# a trailing * stands for any ending).
workload "computer-vision" {
  score = 90
  finds = ["libopencv*", "opencv*", "libdarknet", "mediapipe", "dlib*", "libgstreamer*"]
}

workload "ml-inference" {
  score = 95
  finds = ["libtensorflow*", "tensorflow*", "libtorch*", "torch", "libonnxruntime*", "onnxruntime*", "tflite*", "libcudart", "libcudnn*", "libnvinfer*"]
}

workload "media" {
  score = 85
  finds = ["libavcodec", "libavformat", "libx264", "libvpx"]
}

workload "database" {
  score = 75
  finds = ["libpq*", "libmysqld", "libmongoc*"]
}

workload "scientific" {
  score = 60
  finds = ["numpy", "scipy", "pandas", "libopenblas*", "libblas", "liblapack", "scikit-learn", "scikit_learn"]
}

workload "data-science" {
  score = 20 # small aggregations over sensor data; heavier: scientific
}

workload "web" {
  score = 30
}

workload "proxy" {
  score = 30
}

workload "iot-gateway" {
  score = 20
}

workload "batch" {
  score = 40
}

# The unikernel that serves as a container image does, for jobs that do not
# name one. * stands for any text; the first that fits counts.
#
# catalog "nginx:*" {
#   unikernel = "unikraft.org/nginx:1.15"
#   guest     = "unikraft"
#   arch      = ["x86_64"] # architectures the image exists for; none: unknown
#   memory    = 32         # MiB; none: as the job says
# }

# Other thresholds or weights for some jobs. What an override leaves out stays
# as above.
#
# override {
#   namespace = "prod" # or node_pool = "edge", or both
#   thresholds {
#     unikernel = 30
#     container = 50
#   }
#   weights {
#     memory = 40
#   }
# }
