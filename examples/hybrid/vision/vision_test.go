// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"encoding/json"
	"image"
	"image/png"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoenig/test/must"
)

// pigoFile is a file of pigo's own module, where the Makefile takes it from.
func pigoFile(t *testing.T, name string) string {
	t.Helper()
	dir, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/esimov/pigo").Output()
	must.NoError(t, err)
	return filepath.Join(strings.TrimSpace(string(dir)), name)
}

func serve(t *testing.T) (*httptest.Server, []byte) {
	t.Helper()
	d, err := loadDetector(pigoFile(t, "cascade/facefinder"))
	must.NoError(t, err)
	sample, err := os.ReadFile(pigoFile(t, "testdata/sample.jpg"))
	must.NoError(t, err)
	server := httptest.NewServer(newHandler(d, sample))
	t.Cleanup(server.Close)
	return server, sample
}

func blank(t *testing.T, width, height int) []byte {
	t.Helper()
	var out bytes.Buffer
	must.NoError(t, png.Encode(&out, image.NewGray(image.Rect(0, 0, width, height))))
	return out.Bytes()
}

func TestDetect(t *testing.T) {
	server, sample := serve(t)
	cases := []struct {
		name   string
		post   []byte // nil: GET
		status int
		faces  int
		err    string
	}{
		{name: "built-in photograph", status: http.StatusOK, faces: 1},
		{name: "posted photograph", post: sample, status: http.StatusOK, faces: 1},
		{name: "nobody there", post: blank(t, 320, 200), status: http.StatusOK, faces: 0},
		{name: "not an image", post: []byte("noise"), status: http.StatusUnprocessableEntity, err: "not a JPEG or PNG"},
		{name: "cut short", post: sample[:len(sample)/2], status: http.StatusUnprocessableEntity, err: "decoding the jpeg image"},
		{name: "too many pixels", post: blank(t, 5000, 4000), status: http.StatusUnprocessableEntity, err: "5000 × 4000"},
		{name: "too many bytes", post: make([]byte, maxUpload+1), status: http.StatusRequestEntityTooLarge, err: "too large"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			method := http.MethodGet
			if c.post != nil {
				method = http.MethodPost
			}
			req, err := http.NewRequestWithContext(t.Context(), method, server.URL+"/detect", bytes.NewReader(c.post))
			must.NoError(t, err)
			res, err := server.Client().Do(req)
			must.NoError(t, err)
			defer func() { must.NoError(t, res.Body.Close()) }()
			must.Eq(t, c.status, res.StatusCode)
			var got struct {
				result
				Error string
			}
			must.NoError(t, json.NewDecoder(res.Body).Decode(&got))
			must.Len(t, c.faces, got.Faces)
			must.StrContains(t, got.Error, c.err)
		})
	}
}

// The face in the sample is where a person sees it.
func TestDetect_Box(t *testing.T) {
	d, err := loadDetector(pigoFile(t, "cascade/facefinder"))
	must.NoError(t, err)
	_, sample := serve(t)
	got, err := d.detect(sample)
	must.NoError(t, err)
	must.Eq(t, 320, got.Width)
	must.Eq(t, 400, got.Height)
	must.Len(t, 1, got.Faces)
	box := got.Faces[0]
	nose := image.Pt(155, 215)
	must.True(t, nose.In(image.Rect(box.X, box.Y, box.X+box.Size, box.Y+box.Size)), must.Sprintf("%+v", box))
	must.Between(t, 150, box.Size, 300)
}

func TestLoadDetector_Missing(t *testing.T) {
	_, err := loadDetector(filepath.Join(t.TempDir(), "none"))
	must.ErrorContains(t, err, "reading the face cascade")
}
