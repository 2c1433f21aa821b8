// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package main

import "time"

// pace is how long a run waits for what: an emulated board takes many times as
// long for everything.
type pace struct {
	askEvery time.Duration // between two attempts at a first answer
	askFor   time.Duration // bounds one attempt
	settle   time.Duration // after the first answer, before memory is read
	idle     time.Duration // over which the CPU of idle processes is read
	round    time.Duration // bounds one round of a contender
	crowd    time.Duration // bounds the start of many instances
}

var hostPace = pace{
	askEvery: 4 * time.Millisecond, askFor: 2 * time.Second,
	settle: time.Second, idle: 2 * time.Second, round: time.Minute, crowd: 3 * time.Minute,
}

// boardPace asks less often, too, as asking costs the board as much as it
// costs to answer.
var boardPace = pace{
	askEvery: 50 * time.Millisecond, askFor: 20 * time.Second,
	settle: 2 * time.Second, idle: 4 * time.Second, round: 3 * time.Minute, crowd: 5 * time.Minute,
}
