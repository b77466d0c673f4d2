package gateway

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/linkerhq/linker/connector/internal/authcall"
	"github.com/linkerhq/linker/connector/internal/session"
	"github.com/linkerhq/linker/connector/internal/uplink"
	"github.com/linkerhq/linker/pkg/envelope"
	"github.com/linkerhq/linker/pkg/failpoint"
	"github.com/linkerhq/linker/pkg/ident"
	"github.com/linkerhq/linker/pkg/topology"
	"github.com/linkerhq/linker/pkg/wire"
)

const (
	// enterTimeout is how long the log may take to acknowledge a login.
	enterTimeout = 5 * time.Second
	// maxEntering bounds the logins that wait for the log's acknowledgement at once;
	// the others wait for their turn. So a crowd takes as long as the log needs, and
	// does not bury it. The sockets bound those who wait.
	maxEntering = 256
	// laneTimeout is how long the reply waits for the lane to know the session.
	laneTimeout = time.Second
)

// Login answers the first AUTH_CLIENT of a socket: it checks who the client is,
// writes the login to the log, waits for the lane, and replies. Whatever is
// accepted by anybody after the reply reaches the session.
func (g *Gateway) Login(ctx context.Context, s *session.Session, f wire.Frame, problem *wire.Problem) {
	began := time.Now()
	reply := wire.AuthReply{AppID: f.AppID, UserID: f.UserID}
	user, refusal := g.verify(ctx, s, f, problem)
	if refusal.Reason == "" {
		refusal.Reason = g.enter(ctx, s, user, features(f.Wants))
	}
	if refusal.Reason != "" {
		reply.Reason, reply.Domain, reply.URLs = refusal.Reason, refusal.Domain, refusal.URLs
		g.refuse(s, reply)
		return
	}
	s.Admit(wire.AppendAuthReply(nil, reply))
	g.metrics.logins[loginAccepted].Inc()
	g.metrics.loginTime.Observe(time.Since(began).Seconds())
	g.cfg.Log.Debug("session logged in", "user", user, "session", s.ID())
	g.review(s) // the network may have changed meanwhile
}

func (g *Gateway) refuse(s *session.Session, reply wire.AuthReply) {
	g.metrics.logins[reply.Reason].Inc()
	s.Reply(wire.AppendAuthReply(nil, reply))
	if reply.Reason == wire.ReasonAuthUnavailable || reply.Reason == wire.ReasonTooManySockets {
		s.End(wire.CloseTryAgain, session.CauseUnavailable)
		return
	}
	s.End(wire.CloseRefused, session.CauseRefused)
}

// verify says who the client is, or with a Reason why it is not let in.
func (g *Gateway) verify(ctx context.Context, s *session.Session, f wire.Frame, problem *wire.Problem) (ident.UserID, wire.AuthReply) {
	if problem != nil {
		return "", wire.AuthReply{Reason: wire.ReasonInvalidRequest}
	}
	user, err := ident.ParseUserID(f.UserID)
	if err != nil {
		return "", wire.AuthReply{Reason: wire.ReasonInvalidUserID}
	}
	network := g.to.Network.Current()
	if network == nil {
		return "", wire.AuthReply{Reason: wire.ReasonAuthUnavailable}
	}
	app, known := network.App(user.App())
	switch {
	case !known:
		return "", wire.AuthReply{Reason: wire.ReasonUnknownApp}
	case app.AppID != f.AppID:
		return "", wire.AuthReply{Reason: wire.ReasonRefused}
	}
	if home := network.HomeOf(user, g.cfg.Domain); home != g.cfg.Domain {
		d, _ := network.Domain(home) // a snapshot names no domain that it does not have
		return "", wire.AuthReply{Reason: wire.ReasonWrongDomain, Domain: home, URLs: d.ClientURLs()}
	}
	return user, wire.AuthReply{Reason: g.authenticate(ctx, s, app, user, f.Token)}
}

// authenticate asks the app, if it wants to be asked.
func (g *Gateway) authenticate(ctx context.Context, s *session.Session, app topology.App, user ident.UserID, token string) wire.Reason {
	switch {
	case !app.AuthEnabled:
		return ""
	case app.AuthURL == "":
		return wire.ReasonAuthMissing
	}
	answer := g.auth.Ask(ctx, authcall.Request{
		App: app.Name, URL: app.AuthURL, AppID: app.AppID, UserID: user, Token: token, Waiting: s.HoldLogin,
	})
	switch answer {
	case authcall.Allowed:
		return ""
	case authcall.Refused:
		return wire.ReasonRefused
	default:
		return wire.ReasonAuthUnavailable
	}
}

// enter makes the session known: here first, so that what the lane delivers is
// taken, then in the log. A lane that does not answer holds nobody up: its next
// owner reads the log.
func (g *Gateway) enter(ctx context.Context, s *session.Session, user ident.UserID, features envelope.Features) wire.Reason {
	if !g.awaitTurn(ctx, s) {
		return wire.ReasonAuthUnavailable // nobody is there to read it
	}
	reason := g.register(ctx, s, user, features)
	<-g.entering
	if reason != "" {
		return reason
	}
	_ = failpoint.Hit(failpoint.ConnectorAfterLogin)
	timer := time.NewTimer(laneTimeout)
	defer timer.Stop()
	select {
	case <-s.Known():
	case <-timer.C:
		g.metrics.unanswered.Inc()
	case <-ctx.Done():
	}
	return ""
}

// register puts the session on the roster and its login into the log.
func (g *Gateway) register(ctx context.Context, s *session.Session, user ident.UserID, features envelope.Features) wire.Reason {
	id := newID()
	if !g.crowd.login(user) {
		return wire.ReasonTooManySockets
	}
	sender := g.to.Uplink.Open(s, id, user, features)
	if !s.Register(session.Identity{ID: id, User: user, Lane: user.Lane(g.cfg.Lanes), Features: features, Sender: sender}) {
		g.crowd.logout(user)
		return wire.ReasonAuthUnavailable // nobody is there to read it
	}
	g.to.Roster.Add(s)
	g.metrics.loggedIn.Inc()
	if err := g.write(ctx, sender); err != nil {
		g.cfg.Log.Debug("login not written", "user", user, "session", id, "error", err)
		return wire.ReasonAuthUnavailable
	}
	return ""
}

// awaitTurn waits until the login may be written. It reports false when the socket has
// ended; else the turn is over with <-g.entering.
func (g *Gateway) awaitTurn(ctx context.Context, s *session.Session) bool {
	select {
	case g.entering <- struct{}{}:
		return true
	default:
	}
	s.HoldLogin(true)
	defer s.HoldLogin(false)
	select {
	case g.entering <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// write writes the login to the log.
func (g *Gateway) write(ctx context.Context, sender *uplink.Sender) error {
	ctx, cancel := context.WithTimeout(ctx, enterTimeout)
	defer cancel()
	return sender.Enter(ctx)
}

func features(w wire.Wants) envelope.Features {
	var f envelope.Features
	for _, wanted := range []struct {
		yes     bool
		feature envelope.Features
	}{
		{w.Listed, envelope.FeatureHints},
		{w.Accept, envelope.FeatureAccept},
		{w.Ack, envelope.FeatureAck},
		{w.Push, envelope.FeaturePush},
	} {
		if wanted.yes {
			f |= wanted.feature
		}
	}
	return f
}

// newID draws the id of a session; 0 stands for none.
func newID() uint64 {
	for {
		if id := rand.Uint64(); id != 0 {
			return id
		}
	}
}
