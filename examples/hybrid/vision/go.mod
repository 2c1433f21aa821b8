// The face detector is an application like any other: a module of its own, so
// that its libraries never become the driver's.
module github.com/nomad-driver-unikernel/nomad-driver-unikernel/examples/hybrid/vision

go 1.26.0

require (
	github.com/esimov/pigo v1.4.6 // indirect
	github.com/google/go-cmp v0.7.0 // indirect
	github.com/shoenig/test v1.13.2 // indirect
)
