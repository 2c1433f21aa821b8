// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package warm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
)

// headerSize is what the header takes in front of QEMU's own bytes.
const headerSize = 4096

// header tells a whole state from a damaged one. The sum is no defence against
// somebody who may write here, who is root; it finds what a power failure or a
// worn SD card did, faster than the file is read from there.
type header struct {
	Key  Key
	Size int64  // bytes behind the header
	Sum  uint32 // CRC-32C of these
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// write puts a header and the state into file.
func write(file *os.File, key Key, state io.Reader) error {
	if _, err := file.Seek(headerSize, io.SeekStart); err != nil {
		return err
	}
	sum := crc32.New(castagnoli)
	size, err := io.Copy(io.MultiWriter(file, sum), state)
	if err != nil {
		return err
	}
	text, err := json.Marshal(header{key, size, sum.Sum32()})
	if err != nil {
		return err
	}
	_, err = file.WriteAt(append(text, make([]byte, headerSize-len(text))...), 0)
	return err
}

// verify checks a state, and leaves the file behind the header.
func verify(file *os.File, key Key) error {
	text := make([]byte, headerSize)
	if _, err := io.ReadFull(file, text); err != nil {
		return fmt.Errorf("reading its header: %w", err)
	}
	var h header
	if err := json.Unmarshal(bytes.TrimRight(text, "\x00"), &h); err != nil {
		return fmt.Errorf("reading its header: %w", err)
	}
	if h.Key != key {
		return errors.New("it is another guest's")
	}
	sum := crc32.New(castagnoli)
	size, err := io.Copy(sum, file)
	if err != nil {
		return fmt.Errorf("reading it: %w", err)
	}
	if size != h.Size || sum.Sum32() != h.Sum {
		return errors.New("it is damaged")
	}
	if _, err := file.Seek(headerSize, io.SeekStart); err != nil {
		return fmt.Errorf("reading it: %w", err)
	}
	return nil
}
