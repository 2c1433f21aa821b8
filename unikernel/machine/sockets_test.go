// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package machine

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/shoenig/test/must"
)

// flagsWithNonblock matches O_NONBLOCK (04000) among the octal flags of fdinfo.
var flagsWithNonblock = regexp.MustCompile(`(?m)^flags:\s+[0-7]*[4-7][0-7]{3}$`)

// A listening socket must not block in the program that inherits it.
func TestListen_DoesNotBlockInAChild(t *testing.T) {
	dir := t.TempDir()
	l, err := listen(dir, "socket")
	must.NoError(t, err)
	t.Cleanup(func() { l.file.Close() })

	child := exec.Command("cat", "/proc/self/fdinfo/3")
	child.ExtraFiles = []*os.File{l.file}
	info, err := child.Output()
	must.NoError(t, err)
	must.RegexMatch(t, flagsWithNonblock, string(info))

	mode, err := os.Stat(filepath.Join(dir, "socket"))
	must.NoError(t, err)
	must.EqOp(t, 0o600, mode.Mode().Perm())
}
