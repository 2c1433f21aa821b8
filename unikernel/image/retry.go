// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package image

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// patience is how long and how often a registry is waited for.
type patience struct {
	tries int           // of one request
	first time.Duration // pause after the first failure; doubled after each
	stall time.Duration // without one byte
}

var usualPatience = patience{tries: 4, first: time.Second, stall: time.Minute}

// retry does something until it works, or fails for good, or has failed often
// enough.
func (p patience) retry(ctx context.Context, progress func(string), do func() error) error {
	pause := p.first
	for try := 1; ; try++ {
		err := do()
		if err == nil || ctx.Err() != nil || !Temporary(err) || try >= p.tries {
			return err
		}
		progress(fmt.Sprintf("trying again in %s: %s", pause, err))
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return errors.Join(ctx.Err(), err)
		}
		pause *= 2
	}
}

// errStalled is a registry that went silent.
var errStalled = errors.New("the registry sent nothing for too long")

// Temporary tells whether an error is the network's or a registry's, and trying
// again could help.
func Temporary(err error) bool {
	var answer *transport.Error
	if errors.As(err, &answer) {
		return answer.Temporary() || answer.StatusCode >= http.StatusInternalServerError || answer.StatusCode == http.StatusTooManyRequests
	}
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return dns.IsTemporary || dns.IsTimeout
	}
	for _, passing := range []error{
		errStalled, io.ErrUnexpectedEOF, io.EOF, net.ErrClosed,
		syscall.ECONNRESET, syscall.ECONNREFUSED, syscall.EPIPE, syscall.EHOSTUNREACH, syscall.ENETUNREACH,
	} {
		if errors.Is(err, passing) {
			return true
		}
	}
	var network net.Error
	return errors.As(err, &network) && network.Timeout()
}

// explain adds what would do to a registry's error.
func explain(err error) error {
	var answer *transport.Error
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.Is(err, errPlainHTTP):
		return err
	case errors.As(err, &answer) && (answer.StatusCode == http.StatusUnauthorized || answer.StatusCode == http.StatusForbidden):
		return fmt.Errorf("the registry refuses, or has no such image: give credentials in the plugin's auth_file (docker login writes one): %w", err)
	case errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound:
		return fmt.Errorf("the registry has no such image or tag: %w", err)
	case errors.As(err, &unknown):
		return fmt.Errorf("the registry's certificate is not trusted: install its CA, or let the operator list it in insecure_registries: %w", err)
	case strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"): // net/http has no sentinel
		return fmt.Errorf("%w: %w", errPlainHTTP, err)
	}
	return err
}

// stallReader cancels a download that sends nothing for too long.
type stallReader struct {
	io.ReadCloser
	timer  *time.Timer
	stall  time.Duration
	cancel context.CancelCauseFunc
	ctx    context.Context
}

// watch reads content until it stalls. cancel ends the request that the
// content comes from; ctx is the one that it cancels.
func (p patience) watch(ctx context.Context, cancel context.CancelCauseFunc, content io.ReadCloser) io.ReadCloser {
	return &stallReader{
		ReadCloser: content, stall: p.stall, cancel: cancel, ctx: ctx,
		timer: time.AfterFunc(p.stall, func() { cancel(errStalled) }),
	}
}

func (s *stallReader) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	s.timer.Reset(s.stall)
	if cause := context.Cause(s.ctx); err != nil && errors.Is(cause, errStalled) {
		err = errStalled
	}
	return n, err
}

// Close ends the request too.
func (s *stallReader) Close() error {
	s.timer.Stop()
	err := s.ReadCloser.Close()
	s.cancel(nil)
	return err
}
