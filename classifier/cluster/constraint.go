// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package cluster

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/go-version"
	"github.com/hashicorp/nomad/api"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/classifier"
)

// unmet names the first of the author's constraints that a node does not meet,
// "" where it meets all.
func unmet(n *node, need classifier.Need) string {
	lists := [][]*api.Constraint{need.Job.Constraints, need.Group.Constraints}
	for _, t := range need.Group.Tasks {
		lists = append(lists, t.Constraints)
	}
	for _, c := range slices.Concat(lists...) {
		if c != nil && !meets(n, c) {
			return strings.TrimSpace(fmt.Sprintf("the job's constraint %s %s %s", c.LTarget, cmp.Or(c.Operand, "="), c.RTarget)) + " is not met"
		}
	}
	return ""
}

// meets tells whether a node meets a constraint, by the rules of Nomad's
// scheduler (scheduler/feasible, checkConstraint). Constraints between
// allocations, such as distinct_hosts, are left to it.
func meets(n *node, c *api.Constraint) bool {
	left, leftFound := resolve(n, c.LTarget)
	right, rightFound := resolve(n, c.RTarget)
	both := leftFound && rightFound
	switch c.Operand {
	case api.ConstraintDistinctHosts, api.ConstraintDistinctProperty:
		return true
	case "", "=", "==", "is":
		return both && left == right
	case "!=", "not":
		return left != right
	case "<", "<=", ">", ">=":
		return both && ordered(c.Operand, left, right)
	case api.ConstraintAttributeIsSet:
		return leftFound
	case api.ConstraintAttributeIsNotSet:
		return !leftFound
	case api.ConstraintVersion, api.ConstraintSemver:
		return both && versioned(left, right)
	case api.ConstraintRegex:
		re, err := regexp.Compile(right)
		return both && err == nil && re.MatchString(left)
	case api.ConstraintSetContains, api.ConstraintSetContainsAll, api.ConstraintSetContainsAny:
		return both && contains(c.Operand, left, right)
	}
	return false
}

// resolve is what a target stands for on a node, and whether it is there.
func resolve(n *node, target string) (string, bool) {
	if !strings.HasPrefix(target, "${") {
		return target, true
	}
	name := strings.TrimSuffix(strings.TrimPrefix(target, "${"), "}")
	switch name {
	case "node.unique.id":
		return n.ID, true
	case "node.unique.name":
		return n.Name, true
	case "node.datacenter":
		return n.Datacenter, true
	case "node.class":
		return n.NodeClass, true
	case "node.pool":
		return n.NodePool, true
	}
	for prefix, from := range map[string]map[string]string{"attr.": n.Attributes, "meta.": n.Meta} {
		if key, ok := strings.CutPrefix(name, prefix); ok {
			value, found := from[key]
			return value, found
		}
	}
	return "", false
}

// ordered compares as whole numbers where both are, else as numbers, else as
// text.
func ordered(operator, left, right string) bool {
	order := cmp.Compare(left, right)
	if a, b, ok := numbers(left, right); ok {
		order = cmp.Compare(a, b)
	}
	switch operator {
	case "<":
		return order < 0
	case "<=":
		return order <= 0
	case ">":
		return order > 0
	}
	return order >= 0
}

func numbers(left, right string) (a, b float64, ok bool) {
	a, errA := strconv.ParseFloat(left, 64)
	b, errB := strconv.ParseFloat(right, 64)
	return a, b, errA == nil && errB == nil
}

func versioned(left, right string) bool {
	v, err := version.NewVersion(left)
	if err != nil {
		return false
	}
	wanted, err := version.NewConstraint(right)
	return err == nil && wanted.Check(v)
}

func contains(operator, left, right string) bool {
	have := words(left)
	for _, want := range words(right) {
		found := slices.Contains(have, want)
		if operator == api.ConstraintSetContainsAny && found {
			return true
		}
		if operator != api.ConstraintSetContainsAny && !found {
			return false
		}
	}
	return operator != api.ConstraintSetContainsAny
}

func words(list string) []string {
	out := strings.Split(list, ",")
	for i := range out {
		out[i] = strings.TrimSpace(out[i])
	}
	return out
}
