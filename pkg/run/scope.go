package run

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// Scope registers metrics of something that may end and begin again while the
// process goes on. Counters begin at zero each time, as after a restart.
type Scope struct {
	registry prometheus.Registerer // static

	mu         sync.Mutex
	collectors []prometheus.Collector // guarded by mu
}

// NewScope returns a scope of the registry.
func NewScope(registry prometheus.Registerer) *Scope { return &Scope{registry: registry} }

// Register implements prometheus.Registerer.
func (s *Scope) Register(c prometheus.Collector) error {
	if err := s.registry.Register(c); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.collectors = append(s.collectors, c)
	return nil
}

// MustRegister implements prometheus.Registerer.
func (s *Scope) MustRegister(list ...prometheus.Collector) {
	for _, c := range list {
		if err := s.Register(c); err != nil {
			panic(err)
		}
	}
}

// Unregister implements prometheus.Registerer.
func (s *Scope) Unregister(c prometheus.Collector) bool { return s.registry.Unregister(c) }

// Close unregisters everything that was registered here.
func (s *Scope) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.collectors {
		s.registry.Unregister(c)
	}
	s.collectors = nil
}
