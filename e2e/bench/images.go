// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
)

// imageSize is what an image takes.
type imageSize struct {
	DiskBytes    int64 `json:"disk_bytes"`    // on the node, ready to run
	NetworkBytes int64 `json:"network_bytes"` // compressed with gzip, as registries serve layers
}

// measureImages compares the application's images.
func (b *bench) measureImages(ctx context.Context) error {
	disk, err := b.site.Docker.ImageSize(ctx, containerImage)
	if err != nil {
		return err
	}
	saved, err := b.site.Docker.Client.ImageSave(ctx, []string{containerImage})
	if err != nil {
		return err
	}
	defer saved.Close()
	moved, err := compressed(saved)
	if err != nil {
		return err
	}
	b.report.Images[container] = imageSize{disk, moved}
	var guest imageSize
	for _, path := range []string{b.platform.kernel, b.platform.initrd} {
		size, err := fileSize(path)
		if err != nil {
			return err
		}
		guest.DiskBytes += size.DiskBytes
		guest.NetworkBytes += size.NetworkBytes
	}
	b.report.Images[unikernel] = guest
	return nil
}

func fileSize(path string) (imageSize, error) {
	file, err := os.Open(path)
	if err != nil {
		return imageSize{}, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return imageSize{}, err
	}
	moved, err := compressed(file)
	return imageSize{info.Size(), moved}, err
}

// counter counts what is written to it.
type counter int64

func (c *counter) Write(data []byte) (int, error) {
	*c += counter(len(data))
	return len(data), nil
}

func compressed(data io.Reader) (int64, error) {
	var size counter
	zip := gzip.NewWriter(&size)
	_, err := io.Copy(zip, data)
	return int64(size), errors.Join(err, zip.Close())
}
