// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"fmt"
	"image"
	_ "image/jpeg" // the format of photographs
	_ "image/png"  // and of the rest
	"math"
	"os"

	pigo "github.com/esimov/pigo/core"
)

const (
	minFace   = 40   // pixels: smaller faces are not looked for
	minScore  = 5.0  // detections that score lower are noise
	overlap   = 0.2  // boxes that overlap more than this are one face
	maxPixels = 16e6 // larger photographs are refused: they would need more memory than the task has
)

// detector finds upright faces.
type detector struct {
	cascade *pigo.Pigo
}

// face is a square box around a face, in pixels from the upper left corner.
type face struct {
	X     int     `json:"x"`
	Y     int     `json:"y"`
	Size  int     `json:"size"`
	Score float64 `json:"score"`
}

// result is what one photograph shows.
type result struct {
	Width  int    `json:"width"`
	Height int    `json:"height"`
	Faces  []face `json:"faces"`
}

// loadDetector reads pigo's binary cascade from a file.
func loadDetector(path string) (*detector, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the face cascade: %w", err)
	}
	cascade, err := pigo.NewPigo().Unpack(data)
	if err != nil {
		return nil, fmt.Errorf("unpacking the face cascade %s: %w", path, err)
	}
	return &detector{cascade: cascade}, nil
}

// detect finds the faces in an encoded photograph.
func (d *detector) detect(encoded []byte) (*result, error) {
	config, format, err := image.DecodeConfig(bytes.NewReader(encoded))
	if err != nil {
		return nil, fmt.Errorf("not a JPEG or PNG image: %w", err)
	}
	if pixels := config.Width * config.Height; pixels > maxPixels {
		return nil, fmt.Errorf("%s image of %d × %d pixels is too large: at most %d pixels", format, config.Width, config.Height, int(maxPixels))
	}
	picture, _, err := image.Decode(bytes.NewReader(encoded))
	if err != nil {
		return nil, fmt.Errorf("decoding the %s image: %w", format, err)
	}
	found := d.cascade.RunCascade(pigo.CascadeParams{
		MinSize:     minFace,
		MaxSize:     min(config.Width, config.Height),
		ShiftFactor: 0.1,
		ScaleFactor: 1.1,
		ImageParams: pigo.ImageParams{
			Pixels: pigo.RgbToGrayscale(pigo.ImgToNRGBA(picture)),
			Rows:   config.Height,
			Cols:   config.Width,
			Dim:    config.Width,
		},
	}, 0)
	out := &result{Width: config.Width, Height: config.Height, Faces: []face{}}
	for _, at := range d.cascade.ClusterDetections(found, overlap) {
		if at.Q < minScore {
			continue
		}
		out.Faces = append(out.Faces, face{
			X:     at.Col - at.Scale/2,
			Y:     at.Row - at.Scale/2,
			Size:  at.Scale,
			Score: math.Round(float64(at.Q)*100) / 100,
		})
	}
	return out, nil
}
