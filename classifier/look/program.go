// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package look

import (
	"bytes"
	"debug/elf"
	"path"
	"regexp"
	"slices"
	"strings"
)

// program is what an entry point is.
type program struct {
	kind   string   // as classifier.ContainerImage.Runtime
	script bool     // text with #!
	forks  []string // calls to start processes that it is linked with
}

// wrappers only start what follows them.
var wrappers = []string{"tini", "tini-static", "dumb-init", "docker-init", "catatonit", "gosu", "su-exec", "env", "exec", "nice"}

// unwrapArgv removes wrappers from a command line, and tells managers of
// several processes on it.
func unwrapArgv(argv []string) (rest, found []string) {
	argv = slices.Clone(argv)
	for len(argv) > 0 {
		base := path.Base(argv[0])
		if slices.Contains(managers, base) || base == "init" && strings.Contains(argv[0], "s6") || argv[0] == "/init" {
			found = append(found, base)
		}
		if !slices.Contains(wrappers, base) {
			return argv, found
		}
		argv = argv[1:]
		if base == "gosu" || base == "su-exec" { // then comes the user
			argv = argv[min(1, len(argv)):]
		}
		for len(argv) > 0 && (strings.HasPrefix(argv[0], "-") || (base == "env" && strings.Contains(argv[0], "="))) {
			argv = argv[1:]
		}
	}
	return argv, found
}

// interpreters by the name of their program, without version.
var interpreters = map[string]string{
	"python": "python", "pypy": "python", "node": "node", "nodejs": "node", "bun": "node", "deno": "node",
	"java": "jvm", "ruby": "ruby", "puma": "ruby", "php": "php", "php-fpm": "php", "perl": "perl", "dotnet": "dotnet",
	"sh": "shell", "bash": "shell", "ash": "shell", "dash": "shell", "zsh": "shell", "busybox": "shell",
	"beam.smp": "beam", "erl": "beam", "elixir": "beam", "lua": "lua", "luajit": "lua",
}

var versionSuffix = regexp.MustCompile(`[-.\d]+$`)

func interpreter(p string) (string, bool) {
	base := path.Base(p)
	if kind, ok := interpreters[base]; ok {
		return kind, true
	}
	kind, ok := interpreters[versionSuffix.ReplaceAllString(base, "")]
	return kind, ok
}

// identify tells what a program is by its name and its content. argv[0] counts
// where the file is a multi-call binary such as busybox.
func identify(file string, content []byte, argv []string) program {
	if line, ok := bytes.CutPrefix(content, []byte("#!")); ok {
		return program{kind: shebang(line), script: true}
	}
	prog := program{}
	if f, err := elf.NewFile(bytes.NewReader(content)); err == nil {
		defer f.Close()
		prog = identifyELF(f)
		if prog.kind == "go" && bytes.Contains(content, goStarter) {
			prog.forks = []string{"os/exec"}
		}
	}
	if kind, ok := interpreter(file); ok {
		prog.kind = kind
		if path.Base(file) == "busybox" && len(argv) > 0 && path.Base(argv[0]) != "busybox" {
			if _, isShell := interpreter(argv[0]); !isShell {
				prog.kind = "dynamic" // one of busybox's other programs
			}
		}
	}
	return prog
}

func shebang(line []byte) string {
	line, _, _ = bytes.Cut(line, []byte("\n"))
	words := strings.Fields(string(line))
	words, _ = unwrapArgv(words)
	if len(words) == 0 {
		return "script"
	}
	if kind, ok := interpreter(words[0]); ok {
		return kind
	}
	return "script"
}

// goStarter is a name that the line table of a Go program holds where it can
// start processes; the linker leaves out what is not called.
var goStarter = []byte("os/exec.(*Cmd).Start")

// starters are calls that start processes.
var starters = []string{"clone", "execv", "execve", "execvp", "fork", "popen", "posix_spawn", "posix_spawnp", "system", "vfork"}

// calls names the functions that a program is linked with: what it imports, or
// what a static one that was not stripped contains.
func calls(f *elf.File, kind string) []string {
	var names []string
	if kind == "static" {
		symbols, err := f.Symbols()
		if err != nil {
			return nil
		}
		for _, s := range symbols {
			if elf.ST_TYPE(s.Info) == elf.STT_FUNC {
				names = append(names, s.Name)
			}
		}
		return names
	}
	symbols, err := f.ImportedSymbols()
	if err != nil {
		return nil
	}
	for _, s := range symbols {
		names = append(names, s.Name)
	}
	return names
}

func identifyELF(f *elf.File) program {
	prog := program{kind: "static"}
	if f.Section(".go.buildinfo") != nil || f.Section(".note.go.buildid") != nil {
		prog.kind = "go"
		return prog
	}
	if slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		prog.kind = "dynamic"
	}
	for _, name := range calls(f, prog.kind) {
		if slices.Contains(starters, name) {
			prog.forks = append(prog.forks, name)
		}
	}
	slices.Sort(prog.forks)
	prog.forks = slices.Compact(prog.forks)
	return prog
}
