// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package guest

import "strings"

func isLinuxSpace(c byte) bool { return strings.IndexByte(" \t\n\v\f\r\xa0", c) >= 0 }

// nextArg is Linux's next_arg (lib/cmdline.c): the word, its value if it has
// one, and what follows.
func nextArg(line string) (param, value string, given bool, rest string) {
	text := []byte(line)
	inQuote, quoted := false, false
	if len(text) > 0 && text[0] == '"' {
		text = text[1:]
		inQuote, quoted = true, true
	}
	end, equals := 0, 0
	for ; end < len(text); end++ {
		if isLinuxSpace(text[end]) && !inQuote {
			break
		}
		if equals == 0 && text[end] == '=' {
			equals = end
		}
		if text[end] == '"' {
			inQuote = !inQuote
		}
	}
	word := string(text[:end])
	next := end
	for next < len(text) && isLinuxSpace(text[next]) {
		next++
	}
	rest = string(text[next:])
	if equals == 0 {
		if quoted {
			word = strings.TrimSuffix(word, `"`)
		}
		return word, "", false, rest
	}
	param, value = word[:equals], word[equals+1:]
	if strings.HasPrefix(value, `"`) {
		return param, strings.TrimSuffix(value[1:], `"`), true, rest
	}
	if quoted {
		value = strings.TrimSuffix(value, `"`)
	}
	return param, value, true, rest
}

// bootLinux gives what the kernel hands to init, and the parameters that it
// keeps.
func bootLinux(line string) (params, env map[string]string, args []string) {
	params, env = map[string]string{}, map[string]string{}
	known := map[string]bool{"console": true, "panic": true, "ip": true}
	line = line[:min(len(line), 2047)]
	for line != "" {
		param, value, given, rest := nextArg(line)
		line = rest
		switch {
		case param == "--" && !given:
			return params, env, initArgs(line)
		case known[param]:
			params[param] = value
		case strings.Contains(param, "."):
		case given:
			env[param] = value
		default:
			args = append(args, param)
		}
	}
	return params, env, args
}

// initArgs reads the words after "--".
func initArgs(line string) []string {
	var args []string
	for line != "" {
		param, value, given, rest := nextArg(line)
		line = rest
		if param == "--" && !given {
			return args
		}
		if given {
			param += "=" + value
		}
		args = append(args, param)
	}
	return args
}
