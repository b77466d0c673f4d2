package target

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/linkerhq/linker/standalone/internal/bench/figures"
)

// Meter measures from outside what a server uses during a run, and what this process
// does. It is called by one goroutine at a time.
type Meter struct {
	pids []int // of the server; none: nothing is known of it

	atBegin, atEnd      reading
	before, with, after int64 // resident bytes: without connections, with them, at the end
	failed              error
}

// reading is the time spent on processors, and when it was read.
type reading struct {
	at           time.Time
	server, self time.Duration
}

// NewMeter reads the memory of a server without connections.
func NewMeter(pids []int) (*Meter, error) {
	m := &Meter{pids: pids}
	m.before = m.resident()
	return m, m.failed
}

// Connected reads the memory with all connections.
func (m *Meter) Connected() { m.with = m.resident() }

// Begin begins what is measured.
func (m *Meter) Begin() { m.atBegin = m.read() }

// End ends what is measured.
func (m *Meter) End() {
	m.atEnd = m.read()
	m.after = m.resident()
}

func (m *Meter) resident() int64 {
	if len(m.pids) == 0 {
		return 0
	}
	bytes, err := Resident(m.pids)
	m.failed = errors.Join(m.failed, err)
	return bytes
}

func (m *Meter) read() reading {
	r := reading{at: time.Now()}
	var err error
	r.server, err = CPU(m.pids)
	m.failed = errors.Join(m.failed, err)
	var self syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &self); err != nil {
		m.failed = errors.Join(m.failed, fmt.Errorf("read the CPU time of this process: %w", err))
	}
	r.self = time.Duration(self.Utime.Nano() + self.Stime.Nano())
	return r
}

// Fill adds what was measured to a run.
func (m *Meter) Fill(r *figures.Run) error {
	if m.failed != nil {
		return m.failed
	}
	messages := 0.0 // while it was measured
	switch {
	case r.DeliveryRate != nil:
		messages = *r.DeliveryRate * r.Seconds
	case r.StoredRate != nil:
		messages = *r.StoredRate * r.Seconds
	}
	took := m.atEnd.at.Sub(m.atBegin.at).Seconds()
	self := (m.atEnd.self - m.atBegin.self).Seconds()
	r.GeneratorPercent = figures.Of(100 * self / took)
	r.GeneratorMicros = figures.Of(1e6 * self / messages)
	if len(m.pids) == 0 {
		return nil
	}
	server := (m.atEnd.server - m.atBegin.server).Seconds()
	r.ServerCPU = figures.Of(server)
	r.ServerCPUPercent = figures.Of(100 * server / took)
	r.ServerCPUPer1000 = figures.Of(1000 * server / messages)
	r.ServerBytes = figures.Of(float64(m.after))
	with := m.with
	if with == 0 { // nothing was measured in between
		with = m.after
	}
	r.BytesPerClient = figures.Of(float64(with-m.before) / float64(r.Connections))
	return nil
}
