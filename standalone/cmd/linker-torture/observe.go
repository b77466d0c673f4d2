package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/linkerhq/linker/standalone/internal/torture/history"
	"github.com/linkerhq/linker/standalone/internal/torture/system"
	"github.com/linkerhq/linker/standalone/internal/torture/verdict"
)

const (
	offsetsEvery = 200 * time.Millisecond
	metricsEvery = 10 * time.Second
	settleTime   = 20 * time.Second // for all that is done now and then: commits, the places of users
	askAgain     = 500 * time.Millisecond

	collectTime = 130 * time.Second
	collectLook = 5 * time.Second
)

// watchOffsets writes down every change of what is committed, so that a step back is
// seen.
func (t *trial) watchOffsets(ctx context.Context) {
	readers := t.system.Offsets()
	type lane struct {
		domain string
		number int
	}
	last := map[lane]int64{}
	ticker := time.NewTicker(offsetsEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			for _, r := range readers {
				r.Close()
			}
			return
		case <-ticker.C:
		}
		for _, r := range readers {
			offsets, err := r.Read(ctx)
			if err != nil {
				continue // the brokers are away, and there is another look soon
			}
			for _, o := range offsets {
				at := lane{o.Domain, o.Lane}
				if before, is := last[at]; is && before == o.Committed {
					continue
				}
				last[at] = o.Committed
				t.writeOffset(o, false)
			}
		}
	}
}

func (t *trial) writeOffset(o system.Offset, final bool) {
	t.history.Append(history.Op{Kind: history.KindOffset, Offset: &history.Offset{
		Domain: o.Domain, Lane: o.Lane, Committed: o.Committed, Log: o.End, Last: final,
	}})
}

// told are the metrics that are kept for people who look for the cause of something.
func told() []string {
	return []string{
		"linker_gateway_sessions", "linker_uplink_accepted_messages_total", "linker_uplink_failed_messages_total", "linker_lane_lag_records",
		"linker_lane_duplicates_total", "linker_lane_resends_total", "linker_lane_spills_total", "linker_lane_stored_total",
		"linker_lane_late_total", "linker_lane_held_total", "linker_lane_dead_letters_total", "linker_session_duplicates_total",
		"linker_lane_fast_dropped_total", "linker_session_dropped_frames_total", "linker_kafka_generations_total", "linker_connector_lives_total",
	}
}

// watchMetrics writes some metrics down now and then.
func (t *trial) watchMetrics(ctx context.Context) {
	ticker := time.NewTicker(metricsEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		for _, p := range t.system.Processes("", "") {
			if !p.Running() {
				continue
			}
			samples, err := p.Metrics(ctx)
			if err != nil {
				continue // it is down or frozen, and there is another look soon
			}
			values := map[string]float64{}
			for _, name := range told() {
				if sum := system.Sum(samples, name); sum > 0 {
					values[name] = sum
				}
			}
			if len(values) > 0 {
				t.history.Append(history.Op{Kind: history.KindSample, Name: p.Name(), Values: values})
			}
		}
	}
}

// figures returns what each process uses.
func (t *trial) figures(ctx context.Context, when string) []history.Process {
	var list []history.Process
	for _, p := range t.system.Processes("", "") {
		samples, err := p.Metrics(ctx)
		if err != nil || len(samples) == 0 {
			continue
		}
		figure := func(name string) int64 { return int64(system.Most(samples, name)) }
		list = append(list, history.Process{
			Name: p.Name(), When: when, Goroutines: figure("go_goroutines"), Files: figure("process_open_fds"),
			Heap: figure("go_memstats_heap_inuse_bytes"), Resident: figure("process_resident_memory_bytes"),
		})
	}
	return list
}

// writeFigures writes down what processes use.
func (t *trial) writeFigures(list []history.Process) {
	for _, p := range list {
		t.history.Append(history.Op{Kind: history.KindProcess, Process: &p})
	}
}

// warmFigures notes what processes use before anything is hurt.
func (t *trial) warmFigures(ctx context.Context) {
	t.warm = map[string]history.Process{}
	list := t.figures(ctx, history.AtWarm)
	for _, p := range list {
		t.warm[p.Name] = p
	}
	t.writeFigures(list)
}

// finalFigures notes what they use at the end. A process that has nothing to do any
// more closes connections of which it has no use after half a minute, and collects
// its garbage when two minutes have passed since the last time: where one has much
// more than at first, that is waited for.
func (t *trial) finalFigures(ctx context.Context) {
	var list []history.Process
	deadline := time.Now().Add(collectTime)
	for {
		list = t.figures(ctx, history.AtEnd)
		grown := slices.ContainsFunc(list, func(p history.Process) bool { return verdict.Grown(t.warm[p.Name], p) })
		if !grown || time.Now().After(deadline) || pause(ctx, collectLook) != nil {
			break
		}
	}
	t.writeFigures(list)
}

// observe writes down what is found in the system while everybody is logged in and
// nothing is under way.
func (t *trial) observe(ctx context.Context) error {
	t.settleBy = time.Now().Add(settleTime)
	if err := t.finalOffsets(ctx); err != nil {
		return err
	}
	if err := t.whereabouts(ctx); err != nil {
		return err
	}
	letters, err := t.system.DeadLetters(ctx)
	if err != nil && !system.NotServed(err) {
		return err
	}
	t.waiting = map[string]history.Mailbox{}
	for _, d := range t.system.Domains() {
		var roads int64
		err := t.until(ctx, func() (bool, error) { // lanes tell it every second only
			var err error
			roads, err = t.system.RoadWaiting(ctx, d.Name)
			return roads == 0, err
		})
		if err != nil {
			return err
		}
		t.waiting[d.Name] = history.Mailbox{Domain: d.Name, Links: roads}
	}
	for _, l := range letters {
		m := t.waiting[l.Domain]
		m.Dead++
		to := l.Users
		if len(to) == 0 && l.User != "" {
			to = []string{l.User}
		}
		t.waiting[l.Domain] = m
		t.history.Append(history.Op{Kind: history.KindDead, Domain: l.Domain, ID: l.MessageID, Code: l.Reason, User: l.From, To: to})
	}
	t.finalFigures(ctx)
	return nil
}

// finalOffsets waits until everything is committed, and writes down what is so far.
func (t *trial) finalOffsets(ctx context.Context) error {
	for _, r := range t.system.Offsets() {
		offsets, err := t.settled(ctx, r)
		r.Close()
		if err != nil {
			return err
		}
		for _, o := range offsets {
			t.writeOffset(o, true)
		}
	}
	return nil
}

// settled returns the offsets of a domain, if it can when everything is committed.
func (t *trial) settled(ctx context.Context, r *system.OffsetReader) ([]system.Offset, error) {
	var offsets []system.Offset
	err := t.until(ctx, func() (bool, error) {
		var err error
		offsets, err = r.Read(ctx)
		behind := slices.ContainsFunc(offsets, func(o system.Offset) bool { return o.Committed != o.End && o.End > 0 })
		return !behind, err
	})
	return offsets, err
}

// whereabouts writes down who the system says is connected, as soon as that is who is.
func (t *trial) whereabouts(ctx context.Context) error {
	var users map[string]int
	err := t.until(ctx, func() (bool, error) {
		seen, err := t.system.Whereabouts(ctx)
		users = seen
		return err == nil && maps.Equal(seen, t.load.Sockets()), err
	})
	if system.NotServed(err) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, user := range slices.Sorted(maps.Keys(users)) {
		t.history.Append(history.Op{Kind: history.KindWhereabouts, User: user, Count: int64(users[user])})
	}
	return nil
}

// until looks again and again until it is satisfied, and once in any case. When the
// time is over that all observations have together, what was seen last counts; an
// error counts only if the last look was in vain.
func (t *trial) until(ctx context.Context, look func() (bool, error)) error {
	ctx, cancel := context.WithDeadline(ctx, t.settleBy)
	defer cancel()
	for {
		done, err := look()
		if done && err == nil || system.NotServed(err) {
			return err
		}
		if pause(ctx, askAgain) != nil {
			return err
		}
	}
}

// after writes down what can be seen only when the system has ended: what waits, and
// what the logs say.
func (t *trial) after(ctx context.Context) error {
	rows, err := t.system.Waiting(ctx)
	if err != nil {
		return err
	}
	for _, d := range t.system.Domains() {
		m := t.waiting[d.Name]
		m.Rows = rows[d.Name]
		t.history.Append(history.Op{Kind: history.KindMailbox, Mailbox: &m})
	}
	findings, err := t.system.ScanLogs()
	if err != nil {
		return err
	}
	for _, f := range findings {
		code, known := map[system.FindingCode]string{
			system.FoundPanic: history.LogPanic, system.FoundRace: history.LogRace, system.FoundSecret: history.LogSecret,
		}[f.Code]
		if !known {
			return errors.Join(err, fmt.Errorf("a finding of an unknown kind: %s", f.Code))
		}
		t.history.Append(history.Op{Kind: history.KindLog, Name: f.Process, Code: code, Note: f.Line})
	}
	return nil
}
