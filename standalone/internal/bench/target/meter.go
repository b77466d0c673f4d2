package target

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/linkerhq/linker/standalone/internal/bench/figures"
)

// Part is processes of a server that do the same.
type Part struct {
	Name string
	PIDs []int
}

// Meter measures from outside what a server uses during a run, and what this process
// does. It is called by one goroutine at a time.
type Meter struct {
	pids  []int // of the server; none: nothing is known of it
	parts []partMeter

	atBegin, atEnd      reading
	before, with, after int64 // resident bytes: without connections, with them, at the end
	failed              error
}

// partMeter measures a part of the server.
type partMeter struct {
	Part

	cpuAtBegin, cpuAtEnd time.Duration
	before, with, after  int64 // resident bytes, as in Meter
}

// reading is the time spent on processors, and when it was read.
type reading struct {
	at           time.Time
	server, self time.Duration
}

// NewMeter reads the memory of a server without connections, and of parts of it.
func NewMeter(pids []int, parts ...Part) (*Meter, error) {
	m := &Meter{pids: pids}
	for _, p := range parts {
		m.parts = append(m.parts, partMeter{Part: p})
	}
	m.before = m.resident(m.pids)
	for i := range m.parts {
		m.parts[i].before = m.resident(m.parts[i].PIDs)
	}
	return m, m.failed
}

// Connected reads the memory with all connections.
func (m *Meter) Connected() {
	m.with = m.resident(m.pids)
	for i := range m.parts {
		m.parts[i].with = m.resident(m.parts[i].PIDs)
	}
}

// Begin begins what is measured.
func (m *Meter) Begin() {
	m.atBegin = m.read()
	for i := range m.parts {
		m.parts[i].cpuAtBegin = m.cpu(m.parts[i].PIDs)
	}
}

// End ends what is measured.
func (m *Meter) End() {
	m.atEnd = m.read()
	m.after = m.resident(m.pids)
	for i := range m.parts {
		m.parts[i].cpuAtEnd = m.cpu(m.parts[i].PIDs)
		m.parts[i].after = m.resident(m.parts[i].PIDs)
	}
}

func (m *Meter) resident(pids []int) int64 {
	if len(pids) == 0 {
		return 0
	}
	bytes, err := Resident(pids)
	m.failed = errors.Join(m.failed, err)
	return bytes
}

func (m *Meter) cpu(pids []int) time.Duration {
	used, err := CPU(pids)
	m.failed = errors.Join(m.failed, err)
	return used
}

func (m *Meter) read() reading {
	r := reading{at: time.Now(), server: m.cpu(m.pids)}
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
	each := func(before, with, after int64) *float64 {
		if with == 0 { // nothing was measured in between
			with = after
		}
		return figures.Of(float64(with-before) / float64(r.Connections))
	}
	r.BytesPerClient = each(m.before, m.with, m.after)
	for _, p := range m.parts {
		r.Parts = append(r.Parts, figures.Part{
			Name: p.Name, Processes: len(p.PIDs), CPUPer1000: figures.Of(1000 * (p.cpuAtEnd - p.cpuAtBegin).Seconds() / messages),
			Bytes: figures.Of(float64(p.after)), BytesPerClient: each(p.before, p.with, p.after),
		})
	}
	return nil
}
