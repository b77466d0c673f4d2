package target

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"
)

// profileSlack is how long a profile may take beyond the time that it covers.
const profileSlack = 30 * time.Second

// longestProfile is what a server takes at once.
const longestProfile = 25 * time.Second

// Kind is one of the profiles that a server shows.
type Kind string

// The kinds. The first two cover a time, the others are taken at one moment.
const (
	KindCPU       Kind = "cpu"
	KindTrace     Kind = "trace"
	KindHeap      Kind = "heap"
	KindAllocs    Kind = "allocs"
	KindGoroutine Kind = "goroutine"
	KindMutex     Kind = "mutex"
	KindBlock     Kind = "block"
)

// Kinds are all of them.
func Kinds() []Kind {
	return []Kind{KindCPU, KindHeap, KindAllocs, KindGoroutine, KindMutex, KindBlock, KindTrace}
}

// Profile fetches a profile of a server into a file, while something is measured that
// takes so long. A profile of one moment is taken when three quarters are over.
func Profile(ctx context.Context, url string, kind Kind, covers time.Duration, file string) error {
	ctx, cancel := context.WithTimeout(ctx, covers+profileSlack)
	defer cancel()
	path := string(kind)
	switch kind {
	case KindCPU, KindTrace:
		if kind == KindCPU {
			path = "profile"
		}
		path += "?seconds=" + strconv.Itoa(max(int(min(covers, longestProfile)/time.Second), 1))
	case KindHeap, KindAllocs, KindGoroutine, KindMutex, KindBlock:
		timer := time.NewTimer(covers * 3 / 4)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/debug/pprof/"+path, nil)
	if err != nil {
		return fmt.Errorf("fetch a profile: %w", err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("fetch a profile: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("fetch a profile from %s: answered with %s; does this server show profiles?", request.URL, response.Status)
	}
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, response.Body)
	if closed := out.Close(); err == nil {
		err = closed
	}
	return err
}
