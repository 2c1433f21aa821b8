// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package jobfile_test

import (
	"strings"
	"testing"

	"github.com/hashicorp/nomad/api"
	"github.com/shoenig/test/must"

	"github.com/nomad-driver-unikernel/nomad-driver-unikernel/classifier/jobfile"
)

func edit(ref jobfile.Ref) jobfile.Edit {
	weight, memory := int8(50), 32
	return jobfile.Edit{
		Ref:    ref,
		Driver: "unikernel",
		Config: []jobfile.ConfigChange{
			{Key: "image", Value: "local/steps-${attr.cpu.arch}", Hint: "hybrid_unikernel_image"},
			{Key: "guest", Value: "unikraft"},
		},
		MemoryMiB: &memory,
		Meta:      []jobfile.Pair{{Key: "hybrid_decision", Value: "unikernel"}},
		Affinities: []*api.Affinity{{
			LTarget: "${attr.driver.unikernel.kvm}", Operand: "=", RTarget: "true", Weight: &weight,
		}},
	}
}

// TestRewriteHCL shows what a rewrite does to each way of writing a task, byte
// for byte.
func TestRewriteHCL(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{
			name: "comments, tabs and odd spacing stay",
			in: "# head\njob \"j\" {\n\ttype   =   \"service\" // odd\n\tgroup \"g\" {\n\t\ttask \"t\" {\n" +
				"\t\t\tdriver = \"docker\" # why\n\t\t\tconfig {\n\t\t\t\timage = \"a:1\"\t# pinned\n\t\t\t\tports = [\"http\"]\n\t\t\t}\n" +
				"\t\t\tmeta {\n\t\t\t\thybrid_unikernel_image = \"local/steps-${attr.cpu.arch}\"\n\t\t\t}\n" +
				"\t\t\tresources {\n\t\t\t\tcpu    = 100\n\t\t\t\tmemory = 256\n\t\t\t}\n\t\t}\n\t}\n}\n",
			want: "# head\njob \"j\" {\n\ttype   =   \"service\" // odd\n\tgroup \"g\" {\n\t\ttask \"t\" {\n" +
				"\t\t\tdriver = \"unikernel\" # why\n\t\t\tconfig {\n\t\t\t\timage = \"local/steps-${attr.cpu.arch}\"\t# pinned\n\t\t\t\tports = [\"http\"]\n\t\t\t\tguest = \"unikraft\"\n\t\t\t}\n" +
				"\t\t\tmeta {\n\t\t\t\thybrid_unikernel_image = \"local/steps-${attr.cpu.arch}\"\n\t\t\t\thybrid_decision        = \"unikernel\"\n\t\t\t}\n" +
				"\t\t\tresources {\n\t\t\t\tcpu    = 100\n\t\t\t\tmemory = 32\n\t\t\t}\n\n" +
				"\t\t\taffinity {\n\t\t\t\tattribute = \"${attr.driver.unikernel.kvm}\"\n\t\t\t\tvalue     = \"true\"\n\t\t\t\tweight    = 50\n\t\t\t}\n\t\t}\n\t}\n}\n",
		},
		{
			name: "blocks on one line and missing blocks",
			in: `job "j" {
  group "g" {
    task "t" {
      driver = "docker"
      config { image = "a:1" }
      meta = { "hybrid_unikernel_image" = "x" }
    }
  }
}
`,
			want: `job "j" {
  group "g" {
    task "t" {
      driver = "unikernel"
      config {
        image = "x"
        guest = "unikraft"
      }
      meta = { "hybrid_unikernel_image" = "x", hybrid_decision = "unikernel" }

      resources {
        memory = 32
      }

      affinity {
        attribute = "${attr.driver.unikernel.kvm}"
        value     = "true"
        weight    = 50
      }
    }
  }
}
`,
		},
		{
			name: "meta by a function, driver by a variable, an image by heredoc",
			in: `variable "d" { default = "docker" }
locals { m = { hybrid_complexity = "low" } }
job "j" {
  group "g" {
    task "t" {
      driver = var.d
      meta   = merge(local.m, { x = "y" })
      config {
        image = <<EOF
a:1
EOF
        args  = ["x"]
      }
      resources {}
    }
  }
}
`,
			want: `variable "d" { default = "docker" }
locals { m = { hybrid_complexity = "low" } }
job "j" {
  group "g" {
    task "t" {
      driver = "unikernel"
      meta   = merge(merge(local.m, { x = "y" }), { hybrid_decision = "unikernel" })
      config {
        image = "local/steps-$${attr.cpu.arch}"
        args  = ["x"]
        guest = "unikraft"
      }
      resources {
        memory = 32
      }

      affinity {
        attribute = "${attr.driver.unikernel.kvm}"
        value     = "true"
        weight    = 50
      }
    }
  }
}
`,
		},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			f, err := jobfile.Parse([]byte(tc.in), jobfile.Options{Path: "job.hcl"})
			must.NoError(t, err)
			e := edit(jobfile.Ref{})
			if v, ok := f.Job.TaskGroups[0].Tasks[0].Meta["hybrid_unikernel_image"]; ok {
				e.Config[0].Value = v
			}
			out, err := f.Rewrite([]jobfile.Edit{e})
			must.NoError(t, err)
			must.Eq(t, tc.want, string(out.Source))
		})
	}
}

const dynamicJob = `
job "j" {
  dynamic "group" {
    for_each = ["a", "b"]
    labels   = [group.value]
    content {
      meta { hybrid_unikernel_image = "local/${group.value}" }
      task "t" {
        driver = "docker"
        config { image = "${group.value}:1" }
      }
    }
  }
  group "plain" {
    task "t" {
      driver = "docker"
      config { image = "c" }
    }
  }
}
`

// TestRewriteDynamic changes all tasks of a dynamic block alike, or none.
func TestRewriteDynamic(t *testing.T) {
	f, err := jobfile.Parse([]byte(dynamicJob), jobfile.Options{Path: "job.hcl"})
	must.NoError(t, err)

	var edits []jobfile.Edit
	for gi, g := range f.Job.TaskGroups {
		if *g.Name == "plain" {
			continue
		}
		e := edit(jobfile.Ref{Group: gi})
		e.Config[0].Value = "local/" + *g.Name
		edits = append(edits, e)
	}
	must.Len(t, 2, edits)
	refs, err := f.Siblings(edits[0].Ref)
	must.NoError(t, err)
	must.Eq(t, []jobfile.Ref{edits[0].Ref, edits[1].Ref}, refs)

	out, err := f.Rewrite(edits)
	must.NoError(t, err)
	must.StrContains(t, string(out.Source), `image = "local/${group.value}"`)
	must.StrContains(t, string(out.Source), `config { image = "c" }`)

	_, err = f.Rewrite(edits[:1])
	must.ErrorIs(t, err, jobfile.ErrNotEditable)
	edits[1].Config[1].Value = "mirage"
	_, err = f.Rewrite(edits)
	must.ErrorIs(t, err, jobfile.ErrNotEditable)
}

// TestRewriteHCLJSON: the same rules hold in HCL's JSON syntax.
func TestRewriteHCLJSON(t *testing.T) {
	in := `{"job": {"j": {
  "meta": {"hybrid_unikernel_image": "local/steps-${attr.cpu.arch}"},
  "dynamic": {"group": {"for_each": ["a", "b"], "labels": ["${group.value}"], "content": {
    "task": {"t": {"driver": "docker", "config": {"image": "${group.value}"}}}}}},
  "group": [{"plain": {"task": {"t": {"driver": "docker", "config": [{"image": "c"}],
    "affinity": [{"attribute": "${node.class}", "value": "x", "weight": 10}]}}}}]
}}}`
	f, err := jobfile.Parse([]byte(in), jobfile.Options{Path: "job.json"})
	must.NoError(t, err)
	must.Eq(t, jobfile.HCLJSON, f.Format)
	plain := jobfile.Ref{Group: -1}
	var made []jobfile.Edit
	for gi, g := range f.Job.TaskGroups {
		if *g.Name == "plain" {
			plain.Group = gi
			continue
		}
		made = append(made, edit(jobfile.Ref{Group: gi}))
	}
	refs, err := f.Siblings(made[0].Ref)
	must.NoError(t, err)
	must.Eq(t, []jobfile.Ref{made[0].Ref, made[1].Ref}, refs)

	out, err := f.Rewrite([]jobfile.Edit{edit(plain)})
	must.NoError(t, err)
	must.StrContains(t, string(out.Source), `"config": [{"image": "local/steps-${attr.cpu.arch}","guest": "unikraft"}]`)
	must.StrContains(t, string(out.Source), `"weight": 10},{"attribute":"${attr.driver.unikernel.kvm}"`)
	out, err = f.Rewrite(made)
	must.NoError(t, err)
	must.StrContains(t, string(out.Source), `"config": [{"image": "c"}]`)

	_, err = f.Rewrite(made[:1])
	must.ErrorIs(t, err, jobfile.ErrNotEditable)
	made[1].Config[1].Value = "mirage"
	_, err = f.Rewrite(made)
	must.ErrorIs(t, err, jobfile.ErrNotEditable)
}

// TestRewriteVolatile: values that are new each time do not stand in the way.
func TestRewriteVolatile(t *testing.T) {
	in := `job "j" {
  meta {
    run  = uuidv4()
    when = "by ${bcrypt("x")}"
  }
  group "g" {
    task "t" {
      driver = "docker"
      config { image = "a:${uuidv4()}" }
      env { RUN = "${uuidv4()}" }
    }
  }
}
`
	f, err := jobfile.Parse([]byte(in), jobfile.Options{Path: "job.hcl"})
	must.NoError(t, err)
	out, err := f.Rewrite([]jobfile.Edit{{Driver: "unikernel", Meta: []jobfile.Pair{{Key: "hybrid_decision", Value: "unikernel"}}}})
	must.NoError(t, err)
	must.StrContains(t, string(out.Source), "run  = uuidv4()")
	must.StrContains(t, string(out.Source), `driver = "unikernel"`)
}

// TestUnwrap makes one side of `driver = "hybrid"` the whole config.
func TestUnwrap(t *testing.T) {
	in := `job "j" {
  group "g" {
    task "t" {
      driver = "hybrid"
      config {
        # both sides
        container {
          image = "a:1"
          # a mount
          mount {
            type = "tmpfs"
          }
        }
        unikernel {
          image = "u:1"
          args  = ["a"] # keep
        }
      }
    }
  }
}
`
	f, err := jobfile.Parse([]byte(in), jobfile.Options{Path: "job.hcl"})
	must.NoError(t, err)
	out, err := f.Rewrite([]jobfile.Edit{{Driver: "unikernel", Unwrap: "unikernel",
		Config: []jobfile.ConfigChange{{Key: "guest", Value: "mirage"}}}})
	must.NoError(t, err)
	must.Eq(t, `job "j" {
  group "g" {
    task "t" {
      driver = "unikernel"
      config {
        # both sides
        image = "u:1"
        args  = ["a"] # keep
        guest = "mirage"
      }
    }
  }
}
`, string(out.Source))
	before := f.Job.TaskGroups[0].Tasks[0] // a rewrite changes nothing of the job it is made from
	must.Eq(t, "hybrid", before.Driver)
	both, err := jobfile.Nested(before.Config, "unikernel")
	must.NoError(t, err)
	must.MapNotContainsKey(t, both, "guest")
	out, err = f.Rewrite([]jobfile.Edit{{Driver: "docker", Unwrap: "container"}})
	must.NoError(t, err)
	must.StrContains(t, string(out.Source), "        image = \"a:1\"\n        # a mount\n        mount {\n          type = \"tmpfs\"\n        }\n      }\n")
}

func TestRewriteJSON(t *testing.T) {
	in := `{
  "Job": {
    "ID": "j",
    "Priority": 50,
    "TaskGroups": [
      {
        "Name": "g",
        "Tasks": [
          {
            "Name": "t",
            "driver": "docker",
            "Config": {"image": "a<1", "z": 1.50},
            "Meta": null,
            "Resources": { "CPU": 100 },
            "Unknown": 1e400
          }
        ]
      }
    ]
  }
}
`
	f, err := jobfile.Parse([]byte(in), jobfile.Options{Path: "job.json"})
	must.NoError(t, err)
	out, err := f.Rewrite([]jobfile.Edit{edit(jobfile.Ref{})})
	must.NoError(t, err)
	must.Eq(t, strings.NewReplacer(
		`"driver": "docker"`, `"driver": "unikernel"`,
		`{"image": "a<1", "z": 1.50}`, `{"image": "local/steps-${attr.cpu.arch}", "z": 1.50, "guest": "unikraft"}`,
		`"Meta": null`, `"Meta": {
              "hybrid_decision": "unikernel"
            }`,
		`{ "CPU": 100 }`, `{ "CPU": 100, "MemoryMB": 32 }`,
		`"Unknown": 1e400`, `"Unknown": 1e400,
            "Affinities": [
              {
                "LTarget": "${attr.driver.unikernel.kvm}",
                "Operand": "=",
                "RTarget": "true",
                "Weight": 50
              }
            ]`,
	).Replace(in), string(out.Source))
}

// TestParseErrors: what cannot be read is refused with its place.
func TestParseErrors(t *testing.T) {
	tests := []struct {
		name, in string
		opts     jobfile.Options
		want     string
	}{
		{"broken HCL", "job \"j\" {\n  group \"g\" {\n", jobfile.Options{}, "job.hcl:"},
		{"unknown variable", `job "j" { region = var.r }`, jobfile.Options{}, "job.hcl:1,23-25"},
		{"variable without a value", "variable \"r\" {}\njob \"j\" { region = var.r }", jobfile.Options{}, `job.hcl: Unset variable "r"`},
		{"what would do", "variable \"r\" {}\njob \"j\" { region = var.r }", jobfile.Options{}, "-var NAME=VALUE"},
		{"undeclared -var", `job "j" {}`, jobfile.Options{Vars: []string{"x=1"}}, `"x"`},
		{"no job", `locals { a = 1 }`, jobfile.Options{}, "job block is required"},
		{"broken JSON", "{\n \"Job\": {,}}", jobfile.Options{}, "job.hcl:2,10"},
		{"wrong type", "{\"ID\": \"a\",\n \"TaskGroups\": 3}", jobfile.Options{}, "job.hcl:2,"},
		{"not a job", `{"a": 1}`, jobfile.Options{}, "neither a Nomad job"},
		{"JSON with variables", `{"ID": "a"}`, jobfile.Options{Vars: []string{"x=1"}}, "takes no variables"},
		{"null group", `{"ID": "a", "TaskGroups": [null]}`, jobfile.Options{}, "TaskGroups[0] is null"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			tc.opts.Path = "job.hcl"
			_, err := jobfile.Parse([]byte(tc.in), tc.opts)
			must.ErrorContains(t, err, tc.want)
		})
	}
}
