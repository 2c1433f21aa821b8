// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

//go:build e2e

package e2e

import (
	"encoding/csv"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/shoenig/test/must"
)

// userAverage and averageAnswer are what the steps application answers.
type userAverage struct {
	ID      string
	Days    int
	Average float64
}

type averageAnswer struct {
	Users []userAverage
}

func (a averageAnswer) top() userAverage {
	return slices.MaxFunc(a.Users, func(x, y userAverage) int { return int(math.Copysign(1, x.Average-y.Average)) })
}

// averages computes from the data set what the application should answer, on a
// road of its own: nothing of the application's code is used.
func averages(t *testing.T) averageAnswer {
	t.Helper()
	data, err := os.Open(site.Layout.Path("examples", "steps", "data", "steps.csv"))
	must.NoError(t, err)
	defer func() { must.NoError(t, data.Close()) }()
	rows, err := csv.NewReader(data).ReadAll()
	must.NoError(t, err)
	must.Eq(t, []string{"Id", "ActivityDate", "TotalSteps"}, rows[0])

	sums, days := map[string]int{}, map[string]int{}
	for _, row := range rows[1:] {
		steps, err := strconv.Atoi(row[2])
		must.NoError(t, err)
		sums[row[0]] += steps
		days[row[0]]++
	}
	var all averageAnswer
	for id, sum := range sums {
		mean := math.Round(float64(sum)/float64(days[id])*100) / 100
		all.Users = append(all.Users, userAverage{ID: id, Days: days[id], Average: mean})
	}
	slices.SortFunc(all.Users, func(a, b userAverage) int { return strings.Compare(a.ID, b.ID) })
	return all
}
