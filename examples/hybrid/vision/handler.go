// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http"
)

const maxUpload = 8 << 20 // bytes

// newHandler answers /healthz and /detect. GET /detect looks at the sample,
// POST /detect at the photograph in the request's body.
func newHandler(d *detector, sample []byte) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusOK, map[string]string{"status": "ok"})
	})
	mux.HandleFunc("GET /detect", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, d, sample)
	})
	mux.HandleFunc("POST /detect", func(w http.ResponseWriter, r *http.Request) {
		photo, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxUpload))
		var tooLarge *http.MaxBytesError
		switch {
		case errors.As(err, &tooLarge):
			refuse(w, http.StatusRequestEntityTooLarge, err)
		case err != nil:
			refuse(w, http.StatusBadRequest, err)
		default:
			answer(w, d, photo)
		}
	})
	return mux
}

func answer(w http.ResponseWriter, d *detector, photo []byte) {
	found, err := d.detect(photo)
	if err != nil {
		refuse(w, http.StatusUnprocessableEntity, err)
		return
	}
	reply(w, http.StatusOK, found)
}

func refuse(w http.ResponseWriter, status int, err error) {
	reply(w, status, map[string]string{"error": err.Error()})
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(body); err != nil {
		log.Printf("vision: answering: %v", err)
	}
}
