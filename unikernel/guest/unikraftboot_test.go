// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package guest

import (
	"slices"
	"strings"
)

// What a Unikraft guest makes of its command line, written from its behaviour
// step by step (lib/ukargparse, lib/uklibparam, lib/ukboot of 0.17 and 0.18)
// and apart from the encoder, which it checks.

// argnparse is uk_argnparse: it shifts the text in place and stops without a
// further look once it has begun the last word that there is room for.
func argnparse(line string, most int) []string {
	text := append([]byte(line), 0, 0)
	length := len(line)
	shift := func(at int) { text = append(text[:at], append(text[at+1:], 0)...) }

	var starts []int
	var quote byte
	space, escape := true, false
	for i := 0; i < length && len(starts) < most; i++ {
		c := text[i]
		if c == 0 {
			break
		}
		if strings.IndexByte(" \r\n\t\v", c) >= 0 && quote == 0 && !escape {
			text[i] = 0
			space = true
			continue
		}
		if c == '\'' || c == '"' {
			regular := escape && quote == 0
			if escape && quote != 0 && c == '"' {
				shift(i - 1)
				i--
				escape, regular = false, true
			}
			if !regular && (quote == 0 || quote == c) {
				if quote == 0 {
					quote = c
				} else {
					quote = 0
				}
				shift(i)
				i--
				continue
			}
		}
		if space {
			starts = append(starts, i)
			space, escape = false, false
		}
		switch {
		case text[i] == '\\' && quote != '\'' && escape:
			shift(i)
			i--
			escape = false
		case text[i] == '\\' && quote != '\'':
			escape = true
		case escape:
			if quote == 0 {
				shift(i - 1)
				i--
			}
			escape = false
		}
	}
	var words []string
	for _, start := range starts {
		end := slices.Index(text[start:], 0)
		words = append(words, string(text[start:start+end]))
	}
	return words
}

// parameter is a library parameter that the guest was given a value for.
type parameter struct{ name, value string }

// libparamParse is uk_libparam_parse: it gives the parameters, how many words
// stand before "--" (all, if there is none), and whether the word "help" stops
// the boot.
func libparamParse(words []string) (params []parameter, before int, help bool) {
	list := false
	name := ""
	for i, word := range words {
		value := word
		if !list {
			switch word {
			case "--":
				return params, i, help
			case "help":
				help = true
				continue
			}
			library, rest, found := strings.Cut(word, ".")
			if !found {
				continue
			}
			var given bool
			rest, value, given = strings.Cut(rest, "=")
			name = library + "." + rest
			if !strings.HasPrefix(value, "[") {
				if given {
					params = append(params, parameter{name, value})
				}
				continue
			}
			list = true
			value = value[1:]
			if value == "" {
				continue
			}
		}
		if strings.HasSuffix(value, "]") {
			list = false
			value = strings.TrimSuffix(value, "]")
			if value == "" {
				continue
			}
		}
		params = append(params, parameter{name, value})
	}
	return params, len(words), help
}

// booted is what a guest found on its command line.
type booted struct {
	name   string
	args   []string
	params []parameter
	help   bool
}

// values are those of one parameter.
func (b booted) values(name string) []string {
	var values []string
	for _, p := range b.params {
		if p.name == name {
			values = append(values, p.value)
		}
	}
	return values
}

// bootUnikraft is uk_boot_early_init_parse_cmdl with the default limits. What
// stands in front is what QEMU or the kernel put there. It fails where the
// guest would stop, or read past its buffers.
func bootUnikraft(inFront, line string, libparam bool) (booted, bool) {
	if inFront != "" {
		line = inFront + " " + line
	}
	if len(line)+1 >= 4096 {
		return booted{}, false
	}
	argv := argnparse(line, 60)
	if len(argv) == 0 || len(argv) >= 60 {
		return booted{}, false
	}
	b := booted{name: argv[0], args: argv[1:]}
	if !libparam {
		return b, true
	}
	_, before, _ := libparamParse(b.args)
	if before == 0 || before >= len(b.args) {
		return b, true
	}
	b.params, _, b.help = libparamParse(b.args)
	b.args = b.args[before+1:]
	return b, !b.help
}

// parseArgv is MirageOS's parse_argv, which sees the words joined again.
func parseArgv(line string) ([]string, bool) {
	var words []string
	var word []byte
	quoted, escaped := false, false
	for i := range len(line) {
		c := line[i]
		switch {
		case escaped:
			word, escaped = append(word, c), false
		case c == '\\':
			escaped = true
		case c == '"':
			quoted = !quoted
		case c == ' ' && !quoted:
			if len(word) > 0 {
				words = append(words, string(word))
			}
			word = nil
		default:
			word = append(word, c)
		}
	}
	if len(word) > 0 {
		words = append(words, string(word))
	}
	return words, !quoted && !escaped
}

// bootSolo5 is what Solo5's virtio target does before it hands on the line.
func bootSolo5(kernel, line string) string {
	_, line, _ = strings.Cut(kernel+" "+line, " ")
	line = line[:min(len(line), 8191)]
	for {
		line = strings.TrimLeft(line, " \t\n\v\f\r")
		rest := line
		for _, option := range []string{"--solo5:quiet", "--solo5:debug"} {
			if after, found := strings.CutPrefix(line, option); found && (after == "" || strings.ContainsAny(after[:1], " \t\n\v\f\r")) {
				rest = after
			}
		}
		if rest == line {
			return line
		}
		line = rest
	}
}
