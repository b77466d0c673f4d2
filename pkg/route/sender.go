package route

import (
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/topology"
	"github.com/linkerhq/linker/pkg/wire"
)

// Sender decides where the messages of one user go, for as long as one description of the
// network is good. Receivers of one message are of few apps and domains: it remembers what
// it has found out about the last ones.
type Sender struct {
	from    ident.UserID
	here    string
	network *topology.Snapshot

	// What is known of the app of the last receiver.
	app     string
	refused wire.Code // why its users cannot be reached; empty: they can
	homes   topology.Homes

	// What is known of the last home.
	home    string
	towards Decision
}

// From returns the Sender of a user, in domain here.
func From(from ident.UserID, here string, network *topology.Snapshot) Sender {
	return Sender{from: from, here: here, network: network, home: here}
}

// To says where a message goes that is for a user.
func (s *Sender) To(user ident.UserID) Decision {
	if n := len(s.app); n == 0 || len(user) <= n || string(user[:n]) != s.app || user[n] != '-' {
		s.look(user.App())
	}
	if s.refused != "" {
		return Decision{Verdict: Refuse, Code: s.refused}
	}
	if home := s.homes.Of(user, s.here); home != s.home {
		s.home, s.towards = home, Towards(home, s.here, s.network)
	}
	return s.towards
}

// look finds out about an app.
func (s *Sender) look(app string) {
	s.app, s.refused, s.homes = app, "", s.network.HomesOf(app)
	switch {
	case !s.network.Knows(app):
		s.refused = wire.CodeUnknownApp
	case !s.network.MayReach(s.from.App(), app):
		s.refused = wire.CodeForbiddenApp
	}
}
