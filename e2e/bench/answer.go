// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// question is the page that is asked for: the user with the most daily steps.
const question = "/top"

// rightAnswer works the answer out from the data, on a road of its own.
func rightAnswer(path string) (string, error) {
	data, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer data.Close()
	rows, err := csv.NewReader(data).ReadAll()
	if err != nil {
		return "", fmt.Errorf("reading %s: %w", path, err)
	}
	sums, days := map[string]int{}, map[string]int{}
	top := ""
	for _, row := range rows[1:] {
		steps, err := strconv.Atoi(row[2])
		if err != nil {
			return "", fmt.Errorf("reading %s: %w", path, err)
		}
		sums[row[0]] += steps
		days[row[0]]++
	}
	mean := func(id string) float64 { return float64(sums[id]) / float64(days[id]) }
	for id := range sums {
		if top == "" || mean(id) > mean(top) {
			top = id
		}
	}
	return fmt.Sprintf(`{"id":"%s","days":%d,"average":%.2f}`, top, days[top], mean(top)), nil
}

// fresh makes a connection for each request: what is asked for the first time
// has none yet.
var fresh = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// awaitAnswer asks until the right answer comes. Each attempt is on its own:
// QEMU's network and Docker's proxy take connections before anybody listens,
// and one that was taken too early may wait long for nothing.
func (p pace) awaitAnswer(ctx context.Context, address, right string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answered := make(chan error, 1)
	slots := make(chan struct{}, 25)
	ticker := time.NewTicker(p.askEvery)
	defer ticker.Stop()
	last := fmt.Errorf("it was not asked")
	failed := make(chan error, cap(slots))
	for {
		select {
		case slots <- struct{}{}:
			go func() {
				defer func() { <-slots }()
				err := p.ask(ctx, address, right)
				to := failed
				if err == nil {
					to = answered
				}
				select {
				case to <- err:
				default:
				}
			}()
		default: // all are waiting for answers
		}
		select {
		case <-answered:
			return nil
		case last = <-failed:
			<-ticker.C
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("no right answer from %s: %w (last: %w)", address, context.Cause(ctx), last)
		}
	}
}

// ask asks once.
func (p pace) ask(ctx context.Context, address, right string) error {
	ctx, cancel := context.WithTimeout(ctx, p.askFor)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+question, nil)
	if err != nil {
		return err
	}
	res, err := fresh.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if got := strings.TrimSpace(string(body)); got != right {
		return fmt.Errorf("%s: %q, want %q", res.Status, got, right)
	}
	return nil
}

// freePort finds a TCP port on loopback that nobody listens on.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
