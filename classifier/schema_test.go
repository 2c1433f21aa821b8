// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package classifier_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/jsonschema-go/jsonschema"
	"github.com/shoenig/test/must"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/classifier"
)

const schemaFile = "../docs/hybrid.schema.json"

// TestSchema keeps docs/hybrid.schema.json in step with the report, and holds
// every golden report against it.
func TestSchema(t *testing.T) {
	schema := reportSchema(t)
	text, err := json.MarshalIndent(schema, "", "  ")
	must.NoError(t, err)
	if *update {
		must.NoError(t, os.WriteFile(schemaFile, append(text, '\n'), 0o644))
	}
	written, err := os.ReadFile(schemaFile)
	must.NoError(t, err)
	must.Eq(t, string(text)+"\n", string(written), must.Sprint("docs/hybrid.schema.json is out of step: go test -update"))

	resolved, err := schema.Resolve(nil)
	must.NoError(t, err)
	reports, err := filepath.Glob("testdata/golden/*.report")
	must.NoError(t, err)
	must.Greater(t, 5, len(reports))
	for _, path := range reports {
		raw, err := os.ReadFile(path)
		must.NoError(t, err)
		var report any
		must.NoError(t, json.Unmarshal(raw, &report))
		must.NoError(t, resolved.Validate(report), must.Sprint(path))
	}
	must.Error(t, resolved.Validate(map[string]any{"version": 1}))
}

// reportSchema is made from the report's type, and says which words there are.
func reportSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	schema, err := jsonschema.For[classifier.Report](nil)
	must.NoError(t, err)
	schema.Schema = "https://json-schema.org/draft/2020-12/schema"
	schema.Title = "The report of nomad-hybrid, version 1"
	schema.Description = "What plan, render and run print with -json. Fields may be added; docs/hybrid.md says what they mean."
	grow(schema)
	schema.Properties["format"].Enum = []any{"hcl", "json", "hcl-json"}
	task := schema.Properties["tasks"].Items
	task.Properties["decision"].Enum = []any{classifier.Container, classifier.Unikernel, classifier.AsWritten}
	task.Properties["rule"].Enum = []any{
		classifier.RuleFixed, classifier.RuleImpossible, classifier.RuleApplication, classifier.RuleResources,
		classifier.RuleKept, classifier.RuleUndecided, classifier.RuleUntouched,
	}
	task.Properties["signals"].Items.Properties["nature"].Enum = []any{classifier.Measure, classifier.Burden, classifier.Circumstance}
	return schema
}

// grow lets objects have more fields than there are now.
func grow(s *jsonschema.Schema) {
	if s == nil {
		return
	}
	if s.Properties != nil {
		s.AdditionalProperties = nil
	}
	for _, p := range s.Properties {
		grow(p)
	}
	grow(s.Items)
	if s.AdditionalProperties != nil {
		grow(s.AdditionalProperties)
	}
}
