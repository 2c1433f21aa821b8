# Copyright (c) The nomad-driver-unikernel authors
# SPDX-License-Identifier: MPL-2.0
#
# awk -f generate.awk >steps.csv
#
# Writes daily steps of 30 people over 31 days, the same in each run. People
# differ in how much they walk and at which days, some miss days, and a few lines
# are what real exports have, too: no steps at all, one huge number.

function random(n) { # 0 to n-1; Lehmer's generator, exact in awk's numbers
	state = state * 48271 % 2147483647
	return state % n
}

BEGIN {
	state = 20160412
	print "Id,ActivityDate,TotalSteps"
	for (u = 0; u < 30; u++) {
		id[u] = 1503960366 + u * 254713 + random(200000)
		usual[u] = 2500 + random(11000)
		missing[u] = u % 7 == 3 ? 4 : 25
	}
	for (day = 0; day < 31; day++) {
		date = day < 19 ? "4/" (day + 12) "/2016" : "5/" (day - 18) "/2016"
		for (u = 0; u < 30; u++) {
			if (random(missing[u]) == 0)
				continue
			steps = usual[u] + random(6001) - 3000
			if (day % 7 >= 5)
				steps = int(steps * 13 / 10)
			if (steps < 0 || random(60) == 0)
				steps = 0
			if (u == 17 && day == 20)
				steps = 99999
			print id[u] "," date "," steps
		}
	}
	# One person of a single day, and two that are equal.
	print "8877689391,5/1/2016,29326"
	print "8253242879,5/1/2016,1"
	print "8253242879,5/2/2016,2"
	print "8253242880,5/1/2016,2"
	print "8253242880,5/2/2016,1"
}
