// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package look

import (
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"github.com/shoenig/test/must"
)

// fakeDocker answers for one image as Docker's daemon does, on a Unix socket.
func fakeDocker(t *testing.T, image, archive string) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "docker.sock")
	listener, err := net.Listen("unix", socket)
	must.NoError(t, err)
	mux := http.NewServeMux()
	mux.HandleFunc("/images/"+image+"/json", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	mux.HandleFunc("/images/"+image+"/get", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, archive) })
	server := httptest.NewUnstartedServer(mux)
	server.Listener.Close()
	server.Listener = listener
	server.Start()
	t.Cleanup(server.Close)
	return socket
}
