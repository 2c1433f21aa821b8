// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package guest

import (
	"fmt"
	"strings"
)

// shellQuote writes a word as Unikraft's splitter (and a POSIX shell) reads
// it: between single quotes, where nothing is special, with single quotes
// between double ones. It needs no backslash, which old releases do not know.
func shellQuote(word string) string {
	if isPlain(word) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'"'"'`) + "'"
}

// isPlain tells whether every splitter takes the word as it stands.
func isPlain(word string) bool {
	return word != "" && !strings.ContainsFunc(word, func(r rune) bool {
		return r <= ' ' || r == 0x7f || strings.ContainsRune("'\"\\", r)
	})
}

// checkWord refuses what no guest's command line carries.
func checkWord(field, word string) error {
	if strings.ContainsRune(word, 0) {
		return fmt.Errorf("%s: %q has a NUL byte, which ends a kernel command line", field, word)
	}
	return nil
}

// checkKey refuses a name that cannot be a variable's.
func checkKey(key string) error {
	if key == "" || strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '=' }) {
		return fmt.Errorf("env: %q is not a variable's name: use one without spaces and =", key)
	}
	return nil
}

// argField names one of the application's arguments, counted as users do.
func argField(i int) string {
	return fmt.Sprintf("args: argument %d", i+1)
}

// joinKernelArgs puts the kernel's parameters into a line, as they are.
func joinKernelArgs(args []string) (string, error) {
	for _, arg := range args {
		if err := checkWord("kernel_args", arg); err != nil {
			return "", err
		}
	}
	return strings.Join(args, " "), nil
}

// splitWords reads a line as Unikraft's splitter does (lib/ukargparse): words
// between white space, single and double quotes, backslash escapes. It fails
// where a quote or an escape is left open.
func splitWords(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	var quote byte
	escaped := false
	flush := func() {
		if word.Len() > 0 {
			words = append(words, word.String())
			word.Reset()
		}
	}
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case escaped:
			if quote == '"' && c != '"' && c != '\\' {
				word.WriteByte('\\') // inside quotes, other escapes stay as they are
			}
			word.WriteByte(c)
			escaped = false
		case c == '\\' && quote != '\'':
			escaped = true
		case c == quote:
			quote = 0
		case quote == 0 && (c == '\'' || c == '"'):
			quote = c
		case quote == 0 && strings.IndexByte(" \r\n\t\v", c) >= 0:
			flush()
		default:
			word.WriteByte(c)
		}
	}
	if quote != 0 || escaped {
		return nil, fmt.Errorf("%q leaves a quote or a backslash open", line)
	}
	flush()
	return words, nil
}
