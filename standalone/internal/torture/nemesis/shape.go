package nemesis

import (
	"context"

	"github.com/linkerhq/linker/standalone/internal/torture/system"
)

// ShapeOf says what there is to hurt in a system.
func ShapeOf(s *system.System) Shape {
	var shape Shape
	urls := map[string][]string{}
	for _, d := range s.Domains() {
		shape.Domains = append(shape.Domains, d.Name)
		urls[d.Name] = d.URLs
	}
	for _, p := range s.Processes("", "") {
		place := Place{Name: p.Name(), Domain: p.Domain()}
		switch p.Role() {
		case system.Connector:
			place.URL, urls[place.Domain] = urls[place.Domain][0], urls[place.Domain][1:] // they are in the same order
			shape.Connectors = append(shape.Connectors, place)
		case system.Processor:
			shape.Processors = append(shape.Processors, place)
		case system.Brokers:
			shape.Servers = append(shape.Servers, place)
		case system.Metaserver:
			shape.Metaserver = place.Name
		case system.Standalone:
			shape.Standalone = place.Name
		}
	}
	for _, server := range s.Servers() {
		shape.Servers = append(shape.Servers, Place{Name: server.Name()})
	}
	if shape.Standalone == "" {
		shape.Links, shape.Redis, shape.Planes = s.Links(), true, true
	}
	return shape
}

// Of is a system as New wants it.
func Of(s *system.System) System { return hurt{s} }

type hurt struct{ system *system.System }

func (h hurt) Target(name string) (Target, error) {
	for _, server := range h.system.Servers() {
		if server.Name() == name {
			return server, nil
		}
	}
	return h.system.Process(name)
}

func (h hurt) Link(a, b string) (Link, error)                 { return h.system.Link(a, b) }
func (h hurt) Flush(ctx context.Context, domain string) error { return h.system.Flush(ctx, domain) }
func (h hurt) Haunt(ctx context.Context, domain string) error {
	_, err := h.system.Haunt(ctx, domain)
	return err
}

func (h hurt) Move(from, to string) error { return h.system.Move(from, to) }
