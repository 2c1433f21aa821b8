# The policy by which nomad-hybrid decides between container and unikernel.
# This is the one that holds where -policy is not given. Copy it, change it,
# and pass it with -policy FILE.
#
# Each signal that is known about a task has a score from 0 (light: belongs in
# a unikernel) to 100 (heavy: belongs in a container). The task's score is
# their mean, weighted by the weights below.

name = "default" # recorded in the job's meta, with a hash of all that is below

thresholds {
  unikernel = 40 # a score at or below this: unikernel
  container = 60 # a score at or above this: container
  # Between them a task keeps what was decided for it before, so that a small
  # change does not flip it. Without an earlier decision: container, undecided.

  evidence = 25 # known signals must weigh this much together, else undecided
}

# How much each signal counts, against the others; 0 switches it off.
weights {
  complexity = 60 # the author's hint hybrid_complexity
  workload   = 40 # the author's hint hybrid_workload
  cpu        = 15 # resources.cpu, MHz
  cores      = 25 # resources.cores
  memory     = 20 # resources.memory, MiB
  count      = 5  # instances of the group, where more than one
  contents   = 30 # kind of work told by libraries in the container image
  runtime    = 20 # what the image's entry point is: Go binary, shell, JVM, …
  forks      = 10 # its entry point is linked with fork, exec or the like
  image_size = 10 # MiB of the container image's files
  peak       = 25 # highest memory seen in the running job, MiB (-cluster)
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

scale "peak" {
  points = [[16, 0], [128, 30], [512, 65], [2048, 100]]
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

# Other thresholds or weights for some jobs; both blocks are given in full.
#
# override {
#   namespace = "prod" # or node_pool = "edge", or both
#   thresholds {
#     unikernel = 30
#     container = 50
#     evidence  = 40
#   }
# }
