// Command 0001-bench measures what ADR 0001 rests on: go run . bbolt|pebble|sqlite DIR.
// It fills DIR with a million rows of 1 KB, measures, and kills itself while it
// writes; then it opens DIR again.
package main

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const others = 1_000_000

func main() {
	if len(os.Args) < 3 {
		log.Fatal("usage: 0001-bench bbolt|pebble|sqlite DIR")
	}
	open := map[string]func(string) (store, error){"bbolt": openBolt, "pebble": openPebble, "sqlite": openSQLite}[os.Args[1]]
	dir := os.Args[2]
	if len(os.Args) > 3 {
		measure(must(open(dir)), dir)
		return
	}
	check(os.MkdirAll(dir, 0o755))
	child := exec.Command(os.Args[0], os.Args[1], dir, "child")
	child.Stdout, child.Stderr = os.Stdout, os.Stderr
	err := child.Run()
	usage, ok := child.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok || usage.Maxrss == 0 || child.ProcessState.Exited() {
		log.Fatal("the child did not end by a kill: ", err)
	}
	fmt.Printf("largest resident set       %10d MB\n", usage.Maxrss>>10)
	begin := time.Now()
	s := must(open(dir))
	_ = must(s.read("u-0000001", 1))
	fmt.Printf("open after kill -9         %10.1f ms\n", ms(time.Since(begin)))
	check(s.close())
}

func measure(s store, dir string) {
	begin := time.Now()
	for i := 0; i < others; i += 1000 {
		rows := make([]row, 1000)
		for j := range rows {
			rows[j] = newRow(fmt.Sprintf("u-%07d", (i+j)%10_000), uint64(i+j))
		}
		check(s.put(rows, i+1000 >= others))
	}
	fmt.Printf("load of a million          %10.1f s\n", time.Since(begin).Seconds())
	fmt.Printf("size                       %10d MB\n", size(dir)>>20)

	w := &writer{s: s}
	w.wake.L = &w.mu
	go w.run()
	for _, callers := range []int{1, 16, 256} {
		insert(w, callers, 3*time.Second)
	}

	backlog := func(to string, n int) []row {
		var rows []row
		for i := range n {
			rows = append(rows, newRow(to, uint64(i)))
		}
		for part := range slices.Chunk(rows, 1000) {
			check(s.put(part, true))
		}
		return rows
	}
	reader := backlog("reader", 4000)
	for _, limit := range []int{100, 2000} {
		timed(fmt.Sprintf("read of the first %d", limit), 50, func(int) {
			if n := must(s.read("reader", limit)); n != limit {
				log.Fatal("read ", n, " rows")
			}
		})
	}
	timed("delete of 100 by key", 40, func(i int) { check(s.remove(reader[i*100 : (i+1)*100])) })
	hoard := backlog("hoarder", 100_000)
	timed("count of 100000", 10, func(int) {
		if n := must(s.count("hoarder", 1<<30)); n != 100_000 {
			log.Fatal("counted ", n)
		}
	})
	for part := range slices.Chunk(hoard, 1000) {
		check(s.remove(part))
	}
	check(s.put([]row{newRow("hoarder", 200_000)}, true))
	timed("read behind 100000 deleted", 50, func(int) { _ = must(s.read("hoarder", 1)) })
	insert(w, 1, 3*time.Second)
	insert(w, 16, 3*time.Second)
	fmt.Printf("size at the end            %10d MB\n", size(dir)>>20)
	time.AfterFunc(time.Second, func() { check(syscall.Kill(os.Getpid(), syscall.SIGKILL)) })
	insert(w, 16, time.Minute)
}

// insert has callers insert single rows, each waiting for its own to be durable.
func insert(w *writer, callers int, d time.Duration) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var took []time.Duration
	begin := time.Now()
	for range callers {
		wg.Go(func() {
			var mine []time.Duration
			for time.Since(begin) < d {
				n := counter.Add(1)
				r := newRow(fmt.Sprintf("w-%05d", n%10_000), n)
				start := time.Now()
				w.put(r)
				mine = append(mine, time.Since(start))
			}
			mu.Lock()
			defer mu.Unlock()
			took = append(took, mine...)
		})
	}
	wg.Wait()
	perSecond := float64(len(took)) / time.Since(begin).Seconds()
	slices.Sort(took)
	fmt.Printf("insert, %3d callers        %10.0f /s   p50 %.2f ms, p99 %.2f ms\n", callers, perSecond, ms(took[len(took)/2]), ms(took[len(took)*99/100]))
}

var counter atomic.Uint64

// A writer commits together whatever queued while the last commit was under way.
type writer struct {
	s       store
	mu      sync.Mutex
	wake    sync.Cond
	queue   []row
	waiters []chan struct{}
}

func (w *writer) put(r row) {
	done := make(chan struct{})
	w.mu.Lock()
	w.queue, w.waiters = append(w.queue, r), append(w.waiters, done)
	w.mu.Unlock()
	w.wake.Signal()
	<-done
}

func (w *writer) run() {
	for {
		w.mu.Lock()
		for len(w.queue) == 0 {
			w.wake.Wait()
		}
		queue, waiters := w.queue, w.waiters
		w.queue, w.waiters = nil, nil
		w.mu.Unlock()
		check(w.s.put(queue, true))
		for _, done := range waiters {
			close(done)
		}
	}
}

func newRow(to string, offset uint64) row {
	r := row{to: to, offset: offset, record: make([]byte, 1000)}
	rand.Read(r.record)
	copy(r.id[:], r.record)
	binary.BigEndian.PutUint64(r.id[8:], offset)
	return r
}

func timed(what string, n int, do func(i int)) {
	var took []time.Duration
	for i := range n {
		begin := time.Now()
		do(i)
		took = append(took, time.Since(begin))
	}
	slices.Sort(took)
	fmt.Printf("%-26s %10.2f ms  p99 %.2f ms\n", what, ms(took[n/2]), ms(took[n*99/100]))
}

func size(dir string) (total int64) {
	for _, path := range must(filepath.Glob(filepath.Join(dir, "*"))) {
		total += must(os.Stat(path)).Size()
	}
	return total
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func must[T any](v T, err error) T {
	check(err)
	return v
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
