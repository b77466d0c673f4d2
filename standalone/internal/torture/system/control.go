package system

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"time"
)

// controlTimeout is how long the script for real servers may take; a Kafka takes its
// time to start.
const controlTimeout = 60 * time.Second

// Server is a real server that a script can hurt.
type Server struct {
	name   string
	script string
}

// servers are those that the script knows.
func controlled() []string { return []string{"kafka", "nats", "redis", "mongodb"} }

// Servers returns the real servers, if there is a script for them.
func (s *System) Servers() []*Server {
	if s.cfg.Control == "" {
		return nil
	}
	var list []*Server
	for _, name := range controlled() {
		list = append(list, &Server{name, s.cfg.Control})
	}
	return list
}

// Name says which it is, such as servers/kafka.
func (s *Server) Name() string { return "servers/" + s.name }

// Kill ends the server as a crash does.
func (s *Server) Kill() error { return s.do("kill") }

// Terminate ends it as an operator does.
func (s *Server) Terminate() error { return s.do("stop") }

// Start starts it again and waits until it answers. A server knows no failpoints.
func (s *Server) Start(string) error { return s.do("start") }

// Stop freezes it.
func (s *Server) Stop() error { return s.do("pause") }

// Continue lets it go on.
func (s *Server) Continue() error { return s.do("resume") }

// Ended is never closed: nobody sees the end of what a script has started.
func (s *Server) Ended() <-chan struct{} { return nil }

// Serves is for the script to know, which waits for it.
func (s *Server) Serves(context.Context) error { return nil }

func (s *Server) do(what string) error {
	ctx, cancel := context.WithTimeout(context.Background(), controlTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, s.script, what, s.name).CombinedOutput()
	if err != nil {
		if ctx.Err() != nil {
			err = errors.Join(err, ctx.Err())
		}
		return fmt.Errorf("%s %s %s: %w: %.500s", s.script, what, s.name, err, out)
	}
	return nil
}
